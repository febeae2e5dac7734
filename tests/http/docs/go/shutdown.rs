// The test of a program in GO.md: one request is in flight when the server gets the signal, and
// it is finished.

async fn hello(ctx: Context) -> &'static str {
    match ctx.sleep(Duration::from_millis(100)).await {
        Ok(()) => "hello",
        Err(_) => "stopped",
    }
}

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (stop, guard) = Context::background().with_cancel();
    let request = async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(url).send();
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            guard.cancel();
        };
        let (response, ()) = tokio::join!(request, late);
        response.unwrap().text().await.unwrap()
    };
    let (served, text) = tokio::join!(serve(stop, listener), request);
    served.unwrap();
    assert_eq!(text, "hello");
}
