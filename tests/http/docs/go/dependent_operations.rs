// The test of a program in GO.md.

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let start = tokio::time::Instant::now();
    let error = order(&Context::background()).await.unwrap_err();
    assert_eq!(error.to_string(), "out of stock");
    assert_eq!(start.elapsed().as_millis(), 100);
}
