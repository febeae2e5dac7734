//! Headers of a request that travel on with its context.

use http::{HeaderMap, HeaderName, HeaderValue};

/// W3C's: they say which trace a request belongs to, and what its services tell each other.
pub(super) const DEFAULT: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// Headers of a request that [`PropagateLayer`](super::PropagateLayer) puts on the calls that are made for it: a value of the
/// request's context.
///
/// They are copied as they are. Where a tracing library is at work, it writes a `traceparent` of its own on each call, and what
/// a call has already is not replaced.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Carried {
    /// `names` are different ones.
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

    /// The headers, in the order in which they are carried.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// Puts on `headers` what is not there yet.
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
