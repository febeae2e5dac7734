// The test of a program in GO.md: databases that answer after some seconds, or fail.

#[derive(Clone, Copy)]
struct Db(u64, Option<u64>);

impl Db {
    async fn count(&self, _table: &str) -> anyhow::Result<u64> {
        tokio::time::sleep(Duration::from_secs(self.0)).await;
        self.1.ok_or_else(|| anyhow::anyhow!("connection refused"))
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let ctx = Context::background();
    let sum = count_users(&ctx, [Db(0, Some(3)), Db(1, Some(4)), Db(1, Some(5))]).await;
    assert_eq!(sum.unwrap(), 12);
    let late = count_users(&ctx, [Db(0, Some(3)), Db(9, Some(4)), Db(1, Some(5))]).await;
    assert_eq!(late.unwrap_err().to_string(), "context deadline exceeded");
    let failed = count_users(&ctx, [Db(0, Some(3)), Db(9, Some(4)), Db(1, None)]).await;
    assert_eq!(failed.unwrap_err().to_string(), "connection refused");
}
