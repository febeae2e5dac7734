// The test of a program in GO.md.

async fn search(query: &str) -> String {
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    format!("results for {query}")
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let (search, ctx) = (Search::default(), Context::background());
    let (first, second) = tokio::join!(search.refresh(&ctx, "go"), search.refresh(&ctx, "rust"));
    let stopped = first.unwrap_err();
    assert_eq!(stopped.cause().unwrap().to_string(), "replaced by a newer request");
    assert_eq!(second.unwrap(), "results for rust");
}
