//! Server-sent events: what the machine tells, as it happens.

use core::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::App;

pub(super) async fn stream(
    State(app): State<App>,
    stop: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = unfold((app.shared.events(), stop), |(mut events, stop)| async move {
        let told = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            told = events.recv() => told,
        };
        let event = match told {
            Ok(text) => Event::default().data(text),
            // Said plainly, so that a client that must not miss anything reads the state again.
            Err(RecvError::Lagged(missed)) => {
                Event::default().data(format!("{{\"event\":\"missed\",\"count\":{missed}}}"))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (events, stop)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
