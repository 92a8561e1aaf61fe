//! The HTTP side of a leg: request by request, some of which are answered here in the server's place.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::control::{Control, Toxic};

type Body = Full<Bytes>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One connection to the server, made anew when the server has closed it.
struct Server {
    address: String,
    sender: Mutex<Option<SendRequest<Body>>>,
}

/// Serves what arrives on a client's connection until it ends.
pub(super) async fn serve(client: DuplexStream, address: String, control: Arc<Control>) {
    let server = Server { address, sender: Mutex::new(None) };
    let answer = service_fn(|request| answer(request, &server, &control));
    let connection = http1::Builder::new()
        // A request that came whole is applied even if its client has hung up since.
        .half_close(true)
        .serve_connection(TokioIo::new(client), answer);
    // A failure ends the connection, which is how its client learns of it.
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    server: &Server,
    control: &Control,
) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match control.now().toxic {
        Toxic::Unavailable => Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, control)),
        Toxic::TooManyRequests { share } if control.is_struck(share) => {
            Ok(refused(StatusCode::TOO_MANY_REQUESTS, &too_many()))
        }
        Toxic::NotFound if head.uri.path().contains("/schemas/ids/") => {
            control.strike(1);
            Ok(refused(StatusCode::NOT_FOUND, &json!({"message": "not found"})))
        }
        Toxic::PartialBulk { share } if head.uri.path().ends_with("/_bulk") => {
            let Some(bulk) = Bulk::part(&body, || control.is_struck(share)) else {
                return server.pass(Request::from_parts(head, Full::new(body))).await;
            };
            let passed = match bulk.passed.is_empty() {
                true => refused(StatusCode::OK, &json!({"errors": false, "items": []})),
                false => {
                    server.pass(Request::from_parts(head, Full::new(bulk.passed.clone().into()))).await?
                }
            };
            bulk.join(passed).await
        }
        _ => server.pass(Request::from_parts(head, Full::new(body))).await,
    }
}

impl Server {
    async fn pass(&self, mut request: Request<Body>) -> Result<Response<Body>, Failure> {
        // The body may have been changed and is in one piece now.
        request.headers_mut().remove(CONTENT_LENGTH);
        request.headers_mut().remove(TRANSFER_ENCODING);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
        let mut sender = self.sender.lock().await;
        let kept = match sender.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut to = match kept {
            Some(kept) => kept,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                let (to, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                to
            }
        };
        let response = to.send_request(request).await?;
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        *sender = Some(to);
        head.headers.remove(TRANSFER_ENCODING);
        Ok(Response::from_parts(head, Full::new(body)))
    }
}

fn too_many() -> Value {
    json!({"error": {"type": "rejected_execution_exception", "reason": "too many requests"}, "status": 429})
}

fn refusal(status: StatusCode, control: &Control) -> Response<Body> {
    control.strike(1);
    refused(status, &json!({"error": status.canonical_reason(), "status": status.as_u16()}))
}

fn refused(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// A bulk request of which some items are withheld from the server.
struct Bulk {
    passed: Vec<u8>,
    /// By item: the operation's name if it is withheld.
    withheld: Vec<Option<String>>,
}

impl Bulk {
    /// `None` where the body is no bulk request or nothing of it is withheld.
    fn part(body: &[u8], mut is_struck: impl FnMut() -> bool) -> Option<Bulk> {
        let mut bulk = Bulk { passed: Vec::new(), withheld: Vec::new() };
        let mut lines = body.split_inclusive(|byte| *byte == b'\n');
        while let Some(action) = lines.next() {
            let parsed: Value = serde_json::from_slice(action).ok()?;
            let operation = parsed.as_object()?.keys().next()?.clone();
            let document = if operation == "delete" { &[] } else { lines.next()? };
            let withheld = is_struck();
            if !withheld {
                bulk.passed.extend_from_slice(action);
                bulk.passed.extend_from_slice(document);
            }
            bulk.withheld.push(withheld.then_some(operation));
        }
        bulk.withheld.iter().any(Option::is_some).then_some(bulk)
    }

    /// The server's answer with an item for each that it did not get. Its own refusal of the whole is passed on.
    async fn join(self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let (mut head, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
        if !head.status.is_success() {
            return Ok(Response::from_parts(head, Full::new(body)));
        }
        let mut answer: Value = serde_json::from_slice(&body)?;
        let mut passed = match answer["items"].take() {
            Value::Array(items) => items.into_iter(),
            _ => Vec::new().into_iter(),
        };
        let items = self.withheld.into_iter().map(|withheld| match withheld {
            None => passed.next().unwrap_or_default(),
            Some(operation) => {
                let mut item = serde_json::Map::new();
                item.insert(operation, too_many());
                Value::Object(item)
            }
        });
        answer["items"] = Value::Array(items.collect());
        if let Some(errors) = answer.get_mut("errors") {
            *errors = true.into();
        }
        head.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(head, Full::new(answer.to_string().into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: &str = "{\"index\":{\"_id\":\"a\"}}\n{\"x\":1}\n{\"delete\":{\"_id\":\"b\"}}\n{\"index\":{\"_id\":\"c\"}}\n{\"x\":3}\n";

    #[test]
    fn a_bulk_request_is_parted_by_items() {
        let mut turn = 0;
        let mut second = || {
            turn += 1;
            turn == 2
        };
        let bulk = Bulk::part(BULK.as_bytes(), &mut second).unwrap();
        assert_eq!(bulk.withheld, [None, Some("delete".to_owned()), None]);
        assert_eq!(bulk.passed, BULK.replace("{\"delete\":{\"_id\":\"b\"}}\n", "").as_bytes());
        assert!(Bulk::part(BULK.as_bytes(), || false).is_none());
        assert!(Bulk::part(b"no bulk", || true).is_none());
    }
}
