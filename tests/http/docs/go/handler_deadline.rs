// The test of a program in GO.md.

async fn build_report() -> String {
    tokio::time::sleep(Duration::from_secs(60)).await;
    String::new()
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    use tower::ServiceExt;

    let start = tokio::time::Instant::now();
    let request = http::Request::get("/report").body(axum::body::Body::empty()).unwrap();
    let response = app(&Context::background()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(start.elapsed().as_secs(), 2);
}
