//! Apicurio Registry, spoken to by its Confluent API, with its data in an H2 file.
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::Service;
use crate::stack::install::Artifact;
use crate::stack::layout::Stack;
use crate::stack::{http, java};

pub struct Registry;

const APP: Artifact = Artifact::Archive {
    name: "apicurio-registry-3.3.3",
    coordinate: "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all",
};

pub fn native_url(stack: &Stack) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}/apis/registry/v2", stack.port("registry")?))
}

fn confluent_url(stack: &Stack) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}/apis/ccompat/v7", stack.port("registry")?))
}

impl Service for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }
    fn about(&self) -> &'static str {
        "Apicurio Registry 3.3.3"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["maven"]
    }
    fn artifacts(&self) -> Vec<Artifact> {
        vec![APP]
    }
    fn java(&self) -> Option<u32> {
        Some(21)
    }
    fn ports(&self) -> &'static [&'static str] {
        &["registry", "registry_management"]
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data("registry");
        fs::create_dir_all(&data)?;
        let mut command = Command::new(java::find(21, &stack.cache).context("no Java 21 or later")?);
        command.current_dir(APP.dir(&stack.cache)).args([
            "-Xmx512m".to_owned(),
            "-Dquarkus.http.host=127.0.0.1".to_owned(),
            format!("-Dquarkus.http.port={}", stack.port("registry")?),
            "-Dquarkus.management.host=127.0.0.1".to_owned(),
            format!("-Dquarkus.management.port={}", stack.port("registry_management")?),
            "-Djava.util.logging.manager=org.jboss.logmanager.LogManager".to_owned(),
            format!("-Dapicurio.datasource.url=jdbc:h2:file:{}", data.join("registry").display()),
            "-jar".to_owned(),
            "quarkus-run.jar".to_owned(),
        ]);
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(http::answers(&format!("http://127.0.0.1:{}/health/ready", stack.port("registry_management")?)))
    }

    /// It starts without any rule; a schema that breaks its readers must be refused.
    fn after_start(&self, stack: &Stack) -> Result<()> {
        let url = format!("{}/config", confluent_url(stack)?);
        http::put(&url, &json!({"compatibility": "BACKWARD"})).map(drop)
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("FHIREHOSE__REGISTRY__URL", confluent_url(stack)?),
            ("STACK_REGISTRY_NATIVE_URL", native_url(stack)?),
        ])
    }
}
