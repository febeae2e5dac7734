// The test of a program in GO.md: the server accepts the connection and never responds.

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        // Returns when the client has closed the connection.
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let error = fetch(&Context::background(), &client, &url).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    let _ = server.await.unwrap();
}
