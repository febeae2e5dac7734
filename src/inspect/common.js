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
