//! A Kafka Connect worker with Debezium's MariaDB connector and the Avro converter of the registry.
use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{Service, kafka};
use crate::shell;
use crate::stack::http;
use crate::stack::install::Artifact;
use crate::stack::layout::Stack;

pub struct Connect;

const DEBEZIUM: Artifact = Artifact::Archive {
    name: "debezium-mariadb-3.5.0",
    coordinate: "io.debezium:debezium-connector-mariadb:3.5.0.Final:tar.gz:plugin",
};
/// Without the jars that the worker already has: two copies of them in one process do not get on.
const AVRO_CONVERTER: Artifact = Artifact::Jars {
    name: "apicurio-converter-2.6.13.Final",
    coordinates: &["io.apicurio:apicurio-registry-utils-converter:2.6.13.Final"],
    without: &[
        "connect-api",
        "connect-json",
        "kafka-clients",
        "slf4j-api",
        "lz4-java",
        "zstd-jni",
        "snappy-java",
    ],
};

pub fn url(stack: &Stack) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}", stack.port("connect")?))
}

impl Service for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }
    fn about(&self) -> &'static str {
        "Kafka Connect 4.3.0, Debezium 3.5.0"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["maven", "zip"]
    }
    fn artifacts(&self) -> Vec<Artifact> {
        let mut artifacts = kafka::NODES[0].artifacts();
        artifacts.extend([DEBEZIUM, AVRO_CONVERTER]);
        artifacts
    }
    fn java(&self) -> Option<u32> {
        Some(17)
    }

    /// The worker finds plugins by their service files, which is three times faster than scanning every class,
    /// and the converter's makers left theirs out: this jar adds it.
    fn install(&self, stack: &Stack) -> Result<()> {
        let libs = AVRO_CONVERTER.dir(&stack.cache).join("libs");
        let jar = libs.join("service-file.jar");
        if jar.is_file() {
            return Ok(());
        }
        let services = libs.join("META-INF/services");
        fs::create_dir_all(&services)?;
        let name = "org.apache.kafka.connect.storage.Converter";
        fs::write(services.join(name), "io.apicurio.registry.utils.converter.AvroConverter\n")?;
        shell::capture(Command::new("zip").current_dir(&libs).args([
            "-q",
            "-r",
            "-m",
            "service-file.jar",
            "META-INF",
        ]))?;
        Ok(())
    }

    fn ports(&self) -> &'static [&'static str] {
        &["connect"]
    }
    fn needs(&self) -> &'static [&'static str] {
        &["kafka", "kafka-2", "kafka-3", "registry"]
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data("connect");
        fs::create_dir_all(&data)?;
        let properties = data.join("worker.properties");
        let text = format!(
            "bootstrap.servers={kafka}\n\
             group.id=connect\n\
             listeners=http://127.0.0.1:{port}\n\
             rest.advertised.host.name=127.0.0.1\n\
             rest.advertised.port={port}\n\
             plugin.path={debezium},{converter}\n\
             plugin.discovery=service_load\n\
             exactly.once.source.support=enabled\n\
             key.converter=org.apache.kafka.connect.json.JsonConverter\n\
             key.converter.schemas.enable=false\n\
             value.converter=org.apache.kafka.connect.json.JsonConverter\n\
             value.converter.schemas.enable=false\n\
             config.storage.topic=connect.configs\n\
             config.storage.replication.factor={copies}\n\
             offset.storage.topic=connect.offsets\n\
             offset.storage.replication.factor={copies}\n\
             offset.storage.partitions=4\n\
             status.storage.topic=connect.status\n\
             status.storage.replication.factor={copies}\n\
             status.storage.partitions=1\n\
             offset.flush.interval.ms=1000\n",
            kafka = kafka::brokers(stack)?,
            copies = stack.brokers,
            port = stack.port("connect")?,
            debezium = DEBEZIUM.dir(&stack.cache).display(),
            converter = AVRO_CONVERTER.dir(&stack.cache).display(),
        );
        fs::write(&properties, text)?;
        let mut command = kafka::java_command(stack, "768m", &data.join("log4j2.properties"))?;
        command.arg("org.apache.kafka.connect.cli.ConnectDistributed").arg(properties);
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(http::answers(&format!("{}/health", url(stack)?)))
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("STACK_CONNECT_URL", url(stack)?)])
    }
}
