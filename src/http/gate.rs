//! What each request passes before its route: whether the hub has room for it, whether its page may ask, and what the
//! answer tells pages. One layer, since each layer of a router costs each request some allocations.

use super::{
    App, admission,
    browser::{self, Reach},
    problem::{self, Problem},
};
use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

/// The gate of a listener that is reached from there, for [`axum::Router::layer`].
#[derive(Clone)]
pub(super) struct GateLayer(Arc<Rules>);

/// The gate before one route.
#[derive(Clone)]
pub(super) struct Gate<S> {
    rules: Arc<Rules>,
    route: S,
}

struct Rules {
    app: Arc<App>,
    reach: Reach,
    cors: CorsLayer,
}

impl GateLayer {
    pub(super) fn new(app: Arc<App>, reach: Reach) -> Self {
        let cors = app.browser.cors();
        Self(Arc::new(Rules { app, reach, cors }))
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, route: S) -> Gate<S> {
        let rules = Arc::clone(&self.0);
        Gate { rules, route }
    }
}

impl Rules {
    /// The answer to a request that may not pass.
    fn refuse(&self, request: &Request) -> Option<Response> {
        admission::turn_away(&self.app, request)
            .or_else(|| browser::refuse(&self.app.browser, self.reach, request))
    }
}

impl<S> Service<Request> for Gate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if browser::is_of_a_page(&request) {
            return Box::pin(self.page(request));
        }
        if let Some(mut refused) = self.rules.refuse(&request) {
            browser::tell_caches(refused.headers_mut());
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let answer = caught(self.route.call(request));
        Box::pin(async move {
            let mut answer = answer.await?;
            browser::tell_caches(answer.headers_mut());
            Ok(answer)
        })
    }
}

impl<S> Gate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    fn page(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<S> {
        let Self { rules, route } = self.clone();
        let cors = rules.cors.clone();
        let checked = service_fn(move |request| {
            let (refused, route) = (rules.refuse(&request), route.clone());
            async move {
                match refused {
                    Some(refused) => Ok(refused),
                    None => caught(route.oneshot(request)).await,
                }
            }
        });
        cors.layer(checked).oneshot(request)
    }
}

/// A route's answer, or a problem if making it panics. That one is told pages and caches as others are.
async fn caught(
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    let mut answer = pin!(answer);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                let detail = "the request could not be answered";
                Poll::Ready(Ok(Problem::new(&problem::INTERNAL, detail).into_response()))
            }
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Server,
        config::{Config, Engine},
    };
    use axum::{
        body::Body,
        http::{HeaderMap, HeaderValue, StatusCode, header},
    };

    async fn headers_after_a_panic(gate: &GateLayer, origin: Option<&str>) -> HeaderMap {
        let route = service_fn(|_: Request| async { panic!("on purpose") });
        let mut request = Request::new(Body::empty());
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let answer = gate.layer(route).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        answer.headers().clone()
    }

    #[tokio::test]
    async fn a_panic_is_answered_as_anything_is() {
        let mut config = Config::default();
        config.log.engine = Engine::Memory;
        let server = Server::open(&config).await.unwrap();
        let gate = GateLayer::new(Arc::clone(&server.app), Reach::Loopback);
        let page = "http://localhost:3000";
        for origin in [None, Some(page), Some("https://elsewhere.example")] {
            let headers = headers_after_a_panic(&gate, origin).await;
            let vary = headers[header::VARY].to_str().unwrap();
            assert_eq!(vary, "accept, origin", "{origin:?}");
            assert!(headers.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS));
            let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            let expected = origin.filter(|origin| *origin == page);
            assert_eq!(allowed.map(|value| value.to_str().unwrap()), expected);
        }
        server.close().await;
    }
}
