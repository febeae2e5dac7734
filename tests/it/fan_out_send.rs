//! A fan-out of borrowed items on the caller's own task is `Send` where its parts are: it can be
//! awaited in a handler of a server, in a spawned task, behind a `Box<dyn Future + Send>`.

use std::pin::{Pin, pin};

use errgroup::{Context, FanOut, Progress, fan_out, fan_out_stream, fetch_all, hedge};
use futures::{FutureExt, Stream, StreamExt};

use crate::fan_out_support::background;

type Error = String;
type Lengths = Result<Vec<usize>, Error>;

async fn length(word: &str) -> Result<usize, Error> {
    tokio::task::yield_now().await;
    Ok(word.len())
}

fn words() -> Vec<String> {
    ["one", "three"].map(str::to_owned).into()
}

/// The bounds of `tokio::spawn`.
async fn in_a_task<F: Future<Output: Send> + Send + 'static>(future: F) -> F::Output {
    tokio::spawn(future).await.unwrap()
}

/// Collects a stream in each of the ways to own it.
async fn collect(stream: impl Stream<Item = Result<usize, Error>> + Unpin) -> Vec<usize> {
    let mut pinned = pin!(stream);
    let mut lengths = Vec::new();
    while let Some(length) = pinned.next().await {
        lengths.push(length.unwrap());
    }
    lengths
}

#[tokio::test]
async fn each_end_of_borrowed_items_can_be_spawned() {
    let ended = in_a_task(async {
        let (ctx, words) = (background(), words());
        let all = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(all.local().all().await, Ok(vec![3, 5]));
        let each = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(each.each_on_this_task().await, Ok(()));
        let settled = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(settled.local().settle().await, [Ok(3), Ok(5)]);
        let first = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(first.local().limit(1).first_ok().await.unwrap(), 3);
        let quorum = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(quorum.local().limit(1).quorum(2).await.unwrap(), [3, 5]);

        let stream = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(collect(stream.local().limit(1).stream()).await, [3, 5]);
        let ordered = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        assert_eq!(collect(ordered.local().ordered_stream()).await, [3, 5]);
        let tried = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        let mut tried = pin!(tried.local().limit(1).try_stream());
        assert_eq!(tried.next().await, Some(Ok(3)));
        assert_eq!(tried.next().await, Some(Ok(5)));
        assert_eq!(tried.next().await, None);
    });
    ended.await;
}

/// `for_each`, behind an opaque type of the caller's.
trait ForEach<'a> {
    fn each_on_this_task(self) -> impl Future<Output = Result<(), Error>> + Send + 'a;
}

impl<'a, S, F, Fut> ForEach<'a> for FanOut<S, F>
where
    S: Stream + Send + 'a,
    F: FnMut(Context, S::Item) -> Fut + Send + 'a,
    Fut: Future<Output = Result<usize, Error>> + Send + 'a,
{
    fn each_on_this_task(self) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.local().for_each()
    }
}

#[tokio::test]
async fn items_that_borrow_in_each_way_can_be_spawned() {
    let ended = in_a_task(async {
        let (ctx, mut words) = (background(), words());
        let prefix = String::from("-");
        let names: Vec<&str> = words.iter().map(String::as_str).collect();
        let borrows = fan_out(&ctx, names.iter().copied(), |ctx: Context, w: &str| {
            let prefix = &prefix;
            async move { Ok::<_, Error>(ctx.run(length(w)).await?? + prefix.len()) }
        });
        assert_eq!(borrows.local().all().await, Ok(vec![4, 6]));

        let borrows = fan_out(&ctx, &names, async |_, w: &&str| {
            Ok::<_, Error>(w.len() + prefix.len())
        });
        assert_eq!(borrows.local().all().await, Ok(vec![4, 6]));

        let chunks = fan_out(
            &ctx,
            names.chunks(1),
            |_, w| async move { length(w[0]).await },
        );
        assert_eq!(chunks.local().all().await, Ok(vec![3, 5]));

        let changes = fan_out(&ctx, words.iter_mut(), |_, word| async move {
            tokio::task::yield_now().await;
            word.push('!');
            Ok::<_, Error>(word.len())
        });
        assert_eq!(changes.local().all().await, Ok(vec![4, 6]));

        let mut seen = 0;
        let told = fan_out(&ctx, words.iter(), |_, w| async move { length(w).await });
        let told = told.on_progress(|progress: Progress| seen = progress.done);
        assert_eq!(told.local().all().await, Ok(vec![4, 6]));
        assert_eq!(seen, 2);

        let items = futures::stream::iter(words.iter());
        let streamed = fan_out_stream(&ctx, items, |_, w| async move { length(w).await });
        assert_eq!(streamed.local().all().await, Ok(vec![4, 6]));
    });
    ended.await;
}

/// The boxed future that `async_trait` and a tower service make of a handler.
fn boxed<'a>(
    ctx: &'a Context,
    words: &'a [String],
) -> Pin<Box<dyn Future<Output = Lengths> + Send + 'a>> {
    Box::pin(async move {
        let words = fan_out(ctx, words.iter(), |_, w| async move { length(w).await });
        words.local().all().await
    })
}

fn opaque<'a>(ctx: &Context, words: &'a [String]) -> impl Future<Output = Lengths> + use<'a> {
    let words = fan_out(
        ctx,
        words,
        |_, w: &'a String| async move { length(w).await },
    );
    words.local().all()
}

#[tokio::test]
async fn a_fan_out_behind_a_box_or_an_opaque_type_can_be_spawned() {
    let ended = in_a_task(async {
        let (ctx, words) = (background(), words());
        assert_eq!(boxed(&ctx, &words).await, Ok(vec![3, 5]));
        assert_eq!(opaque(&ctx, &words).await, Ok(vec![3, 5]));
    });
    ended.await;
}

#[tokio::test]
async fn a_fan_out_of_static_items_on_the_runtime_can_be_spawned() {
    static WORDS: [&str; 2] = ["one", "three"];
    let ended = in_a_task(async {
        let ctx = background();
        let all = fan_out(&ctx, WORDS.iter(), |_, w| async move { length(w).await });
        assert_eq!(all.all().await, Ok(vec![3, 5]));
        let all = fetch_all(&ctx, 2, &WORDS, |_, w| async move { length(w).await });
        assert_eq!(all.await, Ok(vec![3, 5]));
        let stream = fan_out(&ctx, WORDS.iter(), |_, w| async move { length(w).await });
        assert_eq!(collect(stream.limit(1).stream()).await, [3, 5]);
        let hedged = hedge(&ctx, std::time::Duration::MAX, 2, |_, n| length(WORDS[n]));
        assert_eq!(hedged.map(Result::unwrap).await, 3);
    });
    ended.await;
}
