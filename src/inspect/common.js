// Text is only ever set as text, so a name or a cause cannot become markup.
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const kinds = { fan_out: "fan-out", cleanup: "clean-up task", background: "background task",
  blocking: "blocking task", local: "local task", tracked: "tracked task",
  lingering: "lingering handler" };

// The text after the # of the address. It is taken as it is if it is not encoded as an address.
function textOfHash() {
  const text = location.hash.slice(1);
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
