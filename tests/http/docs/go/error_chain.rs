// The test of a program in GO.md.

async fn fetch() -> anyhow::Result<String> {
    std::future::pending().await
}

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("the user pressed stop");
    let err = load(&ctx).await.unwrap_err();
    assert_eq!(
        format!("{err:#}"),
        "fetch interrupted: context cancelled: the user pressed stop"
    );
}
