// The test of a program in GO.md.

fn test() {
    let minute = std::time::Duration::from_secs(60);
    let ctx = until(&Context::background(), SystemTime::now() + minute);
    assert!(!ctx.is_done() && ctx.remaining().unwrap() <= minute);
    let ctx = until(&Context::background(), SystemTime::now() - minute);
    assert!(ctx.err().unwrap().is_deadline_exceeded());
}
