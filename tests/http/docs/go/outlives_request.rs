// The test of a program in GO.md: the request is cancelled, and the line is written.

static LOG: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

async fn write_audit_log(line: String) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    LOG.lock().unwrap().push(line);
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let pool = errgroup::Group::new();
    let (request, guard) = Context::background().with_cancel();
    audit(&request, &pool.spawner(), "order 7".to_owned());
    drop(guard);
    pool.wait().await.unwrap();
    assert_eq!(*LOG.lock().unwrap(), ["order 7"]);
}
