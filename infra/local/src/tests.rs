//! All engines together, by the real SDK clients, over loopback and in process.

use std::collections::HashMap;
use std::path::Path;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put, PutRequest,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, StreamSpecification, StreamViewType, TransactWriteItem,
    WriteRequest,
};
use aws_sdk_dynamodb::{Client as DynamoDb, error::ProvideErrorMetadata as _};
use aws_sdk_kinesis::Client as Kinesis;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use aws_sdk_s3::Client as S3;
use aws_sdk_s3::primitives::ByteStream;
use recount_schemas::host::SystemHost;
use tokio::task::JoinHandle;

use crate::client;
use crate::engines::{Engines, OpenError, Options, Storage};
use crate::io::BlockingWork;
use crate::serve::listen;

struct Served {
    config: SdkConfig,
    endpoint: String,
    task: JoinHandle<()>,
}

/// Engines on a port of their own.
async fn served(dir: &Path) -> Served {
    let listener = listen(0).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let engines = Engines::open(dir, SystemHost::shared(), Options::default()).unwrap();
    let task = tokio::spawn(async move { engines.serve(listener, std::future::pending()).await.unwrap() });
    Served { config: client::sdk_config(&endpoint).await, endpoint, task }
}

impl Served {
    /// Ends without any shutdown, as a kill would.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

async fn create_table(client: &DynamoDb, streamed: bool) {
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let attribute = |name: &str| {
        let kind = ScalarAttributeType::S;
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewAndOldImages)
        .build()
        .unwrap();
    client
        .create_table()
        .table_name("totals")
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key("pk", KeyType::Hash))
        .key_schema(key("sk", KeyType::Range))
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"))
        .set_stream_specification(streamed.then_some(stream))
        .send()
        .await
        .unwrap();
}

async fn dynamodb_works(config: &SdkConfig) {
    let client = DynamoDb::new(config);
    create_table(&client, false).await;
    let put = |pk: &str, sk: &str| HashMap::from([("pk".to_owned(), s(pk)), ("sk".to_owned(), s(sk))]);
    client.put_item().table_name("totals").set_item(Some(put("acme", "2026-11"))).send().await.unwrap();

    let update = |condition: &str| {
        client
            .update_item()
            .table_name("totals")
            .key("pk", s("acme"))
            .key("sk", s("2026-11"))
            .update_expression("ADD events :n")
            .condition_expression(condition)
            .expression_attribute_values(":n", n(3))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    };
    update("attribute_not_exists(events)").send().await.unwrap();
    let refused = update("attribute_not_exists(events)").send().await.unwrap_err().into_service_error();
    let UpdateItemError::ConditionalCheckFailedException(refused) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.item().unwrap()["events"], n(3), "ALL_OLD comes with the refusal");

    let write = |sk: &str| {
        let request = PutRequest::builder().set_item(Some(put("batch", sk))).build().unwrap();
        WriteRequest::builder().put_request(request).build()
    };
    let batch = (0..25).map(|i| write(&format!("{i:02}"))).collect();
    let answer = client.batch_write_item().request_items("totals", batch).send().await.unwrap();
    assert!(answer.unprocessed_items().is_none_or(HashMap::is_empty));
    let found = client
        .query()
        .table_name("totals")
        .key_condition_expression("pk = :p AND sk BETWEEN :a AND :b")
        .expression_attribute_values(":p", s("batch"))
        .expression_attribute_values(":a", s("05"))
        .expression_attribute_values(":b", s("09"))
        .consistent_read(true)
        .send()
        .await
        .unwrap();
    assert_eq!(
        found.items().iter().map(|item| item["sk"].as_s().unwrap().as_str()).collect::<Vec<_>>(),
        ["05", "06", "07", "08", "09"]
    );

    let transact = |sk: &str| {
        let put = Put::builder()
            .table_name("totals")
            .set_item(Some(put("tx", sk)))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    client.transact_write_items().transact_items(transact("1")).transact_items(transact("2")).send().await.unwrap();
    let cancelled = client
        .transact_write_items()
        .transact_items(transact("3"))
        .transact_items(transact("2"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = cancelled else { panic!("{cancelled:?}") };
    let codes: Vec<_> = cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(codes, ["None", "ConditionalCheckFailed"]);
    let third = client.get_item().table_name("totals").key("pk", s("tx")).key("sk", s("3")).send().await.unwrap();
    assert!(third.item().is_none(), "a cancelled transaction writes nothing");

    let many = vec!["contains(pk, :n)"; 200].join(" AND ");
    let refused = update(&many).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    assert!(refused.message().unwrap().contains("limit is 300"), "{refused:?}");
}

async fn kinesis_works(config: &SdkConfig) {
    let client = Kinesis::new(config);
    client.create_stream().stream_name("changes").shard_count(1).send().await.unwrap();
    let entry = |i: usize| {
        let data = Blob::new(format!("record {i}"));
        PutRecordsRequestEntry::builder().partition_key(i.to_string()).data(data).build().unwrap()
    };
    let put = client.put_records().stream_name("changes").set_records(Some((0..10).map(entry).collect()));
    assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
    assert_eq!(kinesis_records(config).await.len(), 10);
}

async fn kinesis_records(config: &SdkConfig) -> Vec<String> {
    let client = Kinesis::new(config);
    let shards = client.list_shards().stream_name("changes").send().await.unwrap();
    let shard = shards.shards()[0].shard_id();
    let kind = ShardIteratorType::TrimHorizon;
    let iterator =
        client.get_shard_iterator().stream_name("changes").shard_id(shard).shard_iterator_type(kind).send().await;
    let page = client.get_records().set_shard_iterator(iterator.unwrap().shard_iterator).send().await.unwrap();
    assert_eq!(page.millis_behind_latest(), Some(0));
    page.records().iter().map(|r| String::from_utf8(r.data().as_ref().to_vec()).unwrap()).collect()
}

async fn s3_works(config: &SdkConfig) {
    let client = client::s3(config);
    client.create_bucket().bucket("archive").send().await.unwrap();
    let body = || ByteStream::from_static(b"0123456789");
    let create = |key: &str| client.put_object().bucket("archive").key(key).if_none_match("*").body(body()).send();
    let put = create("_log/1.json").await.unwrap();
    let refused = create("_log/1.json").await.unwrap_err();
    assert_eq!(refused.code(), Some("PreconditionFailed"));
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 412);

    let get = || client.get_object().bucket("archive").key("_log/1.json");
    let whole = get().send().await.unwrap();
    assert_eq!((whole.e_tag(), whole.content_length()), (put.e_tag(), Some(10)));
    assert_eq!(whole.body.collect().await.unwrap().to_vec(), b"0123456789");
    let slice = get().range("bytes=2-4").send().await.unwrap();
    assert_eq!(slice.content_range(), Some("bytes 2-4/10"));
    assert_eq!(slice.body.collect().await.unwrap().to_vec(), b"234");
    let suffix = get().range("bytes=-3").send().await.unwrap();
    assert_eq!(suffix.body.collect().await.unwrap().to_vec(), b"789");
    let outside = get().range("bytes=10-").send().await.unwrap_err();
    assert_eq!(outside.raw_response().unwrap().status().as_u16(), 416);
    let same = get().if_none_match(put.e_tag().unwrap()).send().await.unwrap_err();
    assert_eq!(same.raw_response().unwrap().status().as_u16(), 304);
    let missing = client.get_object().bucket("archive").key("nothing").send().await.unwrap_err();
    assert!(missing.into_service_error().is_no_such_key());
    let head = client.head_object().bucket("archive").key("nothing").send().await.unwrap_err();
    assert!(head.into_service_error().is_not_found());

    let copy = |from: &str, to: &str| {
        client.copy_object().bucket("archive").copy_source(format!("archive/{from}")).key(to).if_none_match("*").send()
    };
    copy("_log/1.json", "events/month=2026-11/é a+b%.parquet").await.unwrap();
    assert_eq!(copy("_log/1.json", "_log/1.json").await.unwrap_err().code(), Some("PreconditionFailed"));
    assert_eq!(copy("nothing", "x").await.unwrap_err().code(), Some("NoSuchKey"));

    let listed = client.list_objects_v2().bucket("archive").delimiter("/").send().await.unwrap();
    let prefixes: Vec<_> = listed.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).collect();
    assert_eq!(prefixes, ["_log/", "events/"]);
    let mut pages = client.list_objects_v2().bucket("archive").max_keys(1).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        for object in page.unwrap().contents() {
            assert_eq!((object.size(), object.e_tag()), (Some(10), put.e_tag()));
            keys.push(object.key().unwrap().to_owned());
        }
    }
    assert_eq!(keys, ["_log/1.json", "events/month=2026-11/é a+b%.parquet"]);

    // Larger than one read and one write of the server.
    let large: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    // From a file the SDK sends aws-chunked with its checksum as a trailer; from memory it sends it as a header.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("large"), &large).unwrap();
    let streamed = ByteStream::from_path(dir.path().join("large")).await.unwrap();
    let put = client.put_object().bucket("archive").key("large").body(streamed).send().await.unwrap();
    assert!(put.checksum_crc32().is_some(), "the trailer named a checksum, and it was verified");
    let back = client.get_object().bucket("archive").key("large").send().await.unwrap();
    assert!(back.body.collect().await.unwrap().to_vec() == large);
    client.delete_object().bucket("archive").key("large").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_clients_over_loopback_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let first = served(dir.path()).await;
    dynamodb_works(&first.config).await;
    kinesis_works(&first.config).await;
    s3_works(&first.config).await;
    let file = std::fs::read(dir.path().join("s3/archive/_log/1.json")).unwrap();
    assert_eq!(file, b"0123456789", "objects are plain files");
    first.kill().await;

    let second = served(dir.path()).await;
    let count = DynamoDb::new(&second.config).scan().table_name("totals").send().await.unwrap();
    assert_eq!(count.count(), 28);
    assert_eq!(kinesis_records(&second.config).await.len(), 10);
    let object = client::s3(&second.config).head_object().bucket("archive").key("_log/1.json").send().await.unwrap();
    assert_eq!(object.content_length(), Some(10));
}

#[tokio::test]
async fn sdk_clients_in_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { work: BlockingWork::Inline, storage: Storage::Memory };
    let engines = Engines::open(dir.path(), SystemHost::shared(), options).unwrap();
    let config = client::in_process(engines.door()).await;
    dynamodb_works(&config).await;
    kinesis_works(&config).await;
    s3_works(&config).await;
}

#[tokio::test]
async fn any_credentials_do() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let odd = aws_credential_types::Credentials::new("AKIAODD", "wJalr/ab+c", Some("token".into()), None, "test");
    let conf = aws_sdk_s3::config::Builder::from(&served.config).credentials_provider(odd).force_path_style(true);
    let client = S3::from_conf(conf.build());
    client.create_bucket().bucket("bucket").send().await.unwrap();
    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await.unwrap();
    // And a body that is not what its checksum says is refused, signature or not.
    let wrong = client.put_object().bucket("bucket").key("k").checksum_crc32("AAAAAA==");
    let refused = wrong.body(ByteStream::from_static(b"y")).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("BadDigest"));
    let kept = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(kept.body.collect().await.unwrap().to_vec(), b"x");
}

#[tokio::test]
async fn streams_of_a_table_are_read_by_their_own_api() {
    let dir = tempfile::tempdir().unwrap();
    let engines = Engines::open(dir.path(), SystemHost::shared(), Options::default()).unwrap();
    let config = client::in_process(engines.door()).await;
    let client = DynamoDb::new(&config);
    create_table(&client, true).await;
    client.put_item().table_name("totals").item("pk", s("a")).item("sk", s("b")).send().await.unwrap();
    let call = |operation: &str, body: serde_json::Value| {
        let (status, body) = engines.dynamo().handle(operation, &serde_json::to_vec(&body).unwrap());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    let streams = call("ListStreams", serde_json::json!({"TableName": "totals"}));
    let arn = &streams["Streams"][0]["StreamArn"];
    let stream = call("DescribeStream", serde_json::json!({ "StreamArn": arn }));
    let shard = &stream["StreamDescription"]["Shards"][0]["ShardId"];
    let iterator = call(
        "GetShardIterator",
        serde_json::json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}),
    );
    let records = call("GetRecords", serde_json::json!({"ShardIterator": iterator["ShardIterator"]}));
    assert_eq!(records["Records"][0]["eventName"], "INSERT");
}

async fn raw(endpoint: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = endpoint.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_and_requests_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path()).await;
    let health = raw(&served.endpoint, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with(r#"{"status":"ready"}"#), "{health}");
    let post = |target: &str, media: &str, length: usize| {
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: {target}\r\ncontent-type: {media}\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let unknown = raw(&served.endpoint, &post("Glue.GetTable", "application/x-amz-json-1.1", 0)).await;
    assert!(unknown.starts_with("HTTP/1.1 400") && unknown.contains("UnknownOperationException"), "{unknown}");
    let cbor = raw(&served.endpoint, &post("Kinesis_20131202.ListStreams", "application/x-amz-cbor-1.1", 0)).await;
    assert!(cbor.starts_with("HTTP/1.1 400") && cbor.contains("AWS_CBOR_DISABLE"), "{cbor}");
    let long = raw(&served.endpoint, &post("DynamoDB_20120810.PutItem", "application/x-amz-json-1.0", 20 << 20)).await;
    assert!(long.starts_with("HTTP/1.1 413"), "{long}");
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = Engines::open(dir.path(), SystemHost::shared(), Options::default()).unwrap();
    let refused = Engines::open(dir.path(), SystemHost::shared(), Options::default()).unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { holder, .. } if *holder == std::process::id().to_string()));
    assert!(refused.to_string().contains("--data"), "{refused}");
    drop(first);
    Engines::open(dir.path(), SystemHost::shared(), Options::default()).unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = listen(0).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = listen(port).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("127.0.0.1:{port}")) && refused.contains("--port"), "{refused}");
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_end() {
    let dir = tempfile::tempdir().unwrap();
    let listener = listen(0).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let engines = Engines::open(dir.path(), SystemHost::shared(), Options::default()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move { engines.serve(listener, async { drop(stopped.await) }).await });
    let config = client::sdk_config(&endpoint).await;
    client::s3(&config).create_bucket().bucket("bucket").send().await.unwrap();
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).await.is_err());
}
