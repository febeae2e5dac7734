// The test of a program in GO.md.

async fn process(job: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(job)).await;
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let (ctx, guard) = Context::background().with_cancel();
    assert_eq!(checksum(&ctx, &[vec![1, 2], vec![3]]).unwrap(), 6);

    let (jobs, receiver) = mpsc::channel(2);
    jobs.send(5).await.unwrap();
    drop(jobs);
    work(&ctx, receiver).await.unwrap();

    let (jobs, receiver) = mpsc::channel(2);
    jobs.send(5).await.unwrap();
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        guard.cancel();
    };
    let (worked, ()) = tokio::join!(work(&ctx, receiver), cancel);
    assert!(worked.unwrap_err().is_cancelled());
    assert!(checksum(&ctx, &[vec![1]]).unwrap_err().is_cancelled());
}
