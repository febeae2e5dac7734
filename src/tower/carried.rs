//! Headers of a request that are propagated with its context.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of W3C's Baggage: values that the services of a request pass along.
pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The headers of W3C's Trace Context and Baggage: the trace that a request belongs to, and the
/// values that its services pass along.
pub(super) const DEFAULT: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    BAGGAGE,
];

/// Headers of a request that [`PropagateLayer`](super::PropagateLayer) copies to the calls that are
/// made for the request.
///
/// It is a value of the request's context: `ctx.value::<Carried>()`. The headers are copied
/// unchanged. A header that a call already has is not replaced, so a tracing library that writes a
/// `traceparent` of its own on each call keeps it.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Carried {
    /// Copies the headers with these names, or returns `None` if there are none. `names` must be
    /// distinct: a name that occurs there twice would be copied twice.
    pub(super) fn of(headers: &HeaderMap, names: &[HeaderName]) -> Option<Carried> {
        let all_of = |name: &HeaderName| {
            let name = name.clone();
            let values = headers.get_all(&name).iter().cloned();
            values
                .map(|value| (name.clone(), value))
                .collect::<Vec<_>>()
        };
        let headers: Vec<_> = names.iter().flat_map(all_of).collect();
        (!headers.is_empty()).then_some(Carried { headers })
    }

    /// Returns the headers, in the order in which the layer copied them.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// Adds the headers whose names are not in `headers` yet, with all their values.
    pub(super) fn put_on(&self, headers: &mut HeaderMap) {
        let missing: Vec<_> = self
            .headers
            .iter()
            .filter(|(name, _)| !headers.contains_key(name))
            .collect();
        for (name, value) in missing {
            headers.append(name, value.clone());
        }
    }
}
