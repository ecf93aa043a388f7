//! Server-sent events: what the machine tells, as it happens.

use core::convert::Infallible;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::App;

/// Which events.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    /// Only events of this name, such as `decided`; all without it.
    only: Option<String>,
}

pub(super) async fn stream(
    State(app): State<App>,
    Query(options): Query<Options>,
    stop: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let wanted = options.only;
    let events = unfold((app.shared.events(), stop, wanted), |(mut events, stop, wanted)| async move {
        let told = loop {
            let told = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                told = events.recv() => told,
            };
            match (&told, &wanted) {
                (Ok(event), Some(name)) if event.name != name.as_str() => {}
                (Ok(_) | Err(_), Some(_) | None) => break told,
            }
        };
        let event = match told {
            Ok(told) => Event::default().data(told.json),
            // Said plainly, so that a client that must not miss anything reads the state again.
            Err(RecvError::Lagged(missed)) => {
                Event::default().data(format!("{{\"event\":\"missed\",\"count\":{missed}}}"))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (events, stop, wanted)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
