// The test of a program in GO.md.

#[derive(Debug, PartialEq)]
struct User(&'static str);

#[derive(Debug, PartialEq)]
struct Order(u64);

async fn load_user(ctx: Context) -> anyhow::Result<User> {
    ctx.check()?;
    Ok(User("Ada"))
}

async fn load_orders(ctx: Context) -> anyhow::Result<Vec<Order>> {
    ctx.check()?;
    Ok(vec![Order(1), Order(2)])
}

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let (user, orders) = page(&Context::background()).await.unwrap();
    assert_eq!((user, orders), (User("Ada"), vec![Order(1), Order(2)]));
}
