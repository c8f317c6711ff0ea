//! A function that panics when its event asks for it, and else answers: to see that the profile which is shipped answers a panic as
//! an error of that invocation, and lives on. `tests/aws/test_shipped.py` runs it.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(answer)).await
}

#[allow(clippy::panic)] // It is what this is for.
async fn answer(event: LambdaEvent<Value>) -> Result<&'static str, Error> {
    if event.payload.get("panic").is_some() {
        panic!("as asked");
    }
    Ok("alive")
}
