// The test of a program in GUIDE.md: the second of three pages panics, and the others are shown.

use std::sync::Mutex;

static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

async fn render(name: &'static str) -> anyhow::Result<String> {
    let millis = if name == "a" { 20 } else { 10 };
    tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    assert_ne!(name, "b");
    Ok(name.to_uppercase())
}

fn show(page: anyhow::Result<String>) {
    SHOWN.lock().unwrap().push(page.unwrap_or_else(|error| error.to_string()));
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    show_all(&Context::background(), vec!["a", "b", "c"]).await;
    let shown = SHOWN.lock().unwrap();
    assert_eq!(*shown, ["b: it panicked", "C", "A"]);
}
