//! Compiles the .proto files, without `protoc`, into messages, and derives the contracts from them: for each service a
//! trait, a server, a client and a method table; for each event its subject. A file that violates a convention fails
//! the build.

mod messages;
#[allow(unreachable_pub, reason = "the crate shares this module and publishes it")]
mod naming;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

use messages::{Methods, rust_path};
use naming::{event_subject, snake};

const META: &str = ".common.v1.Meta";
const ERROR: &str = ".common.v1.Error";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = proto_files(&root)?;
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    println!("cargo::rerun-if-changed=.");

    let set = protox::Compiler::new([&root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?
        .file_descriptor_set();
    fs::write(out.join("descriptors.binpb"), without_source_info(&set).encode_to_vec())?;

    let ours: Vec<&FileDescriptorProto> =
        set.file.iter().filter(|file| !file.package().starts_with("google.")).collect();
    fs::write(out.join("contract.rs"), contract(&ours)?)?;

    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .bytes(["."])
        .skip_debug(messages::with_secrets(&set))
        .service_generator(Box::new(Contracts))
        .include_file("packages.rs")
        .compile_fds(set)?;
    Ok(())
}

fn proto_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn without_source_info(set: &FileDescriptorSet) -> FileDescriptorSet {
    let mut set = set.clone();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

/// Generates the trait, server, client and method table of each service.
struct Contracts;

impl prost_build::ServiceGenerator for Contracts {
    fn generate(&mut self, service: prost_build::Service, out: &mut String) {
        Contract(&service).write(out).expect("writing to a string does not fail");
    }
}

struct Contract<'a>(&'a prost_build::Service);

impl Contract<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let prost_build::Service { name, package, proto_name, comments, methods, .. } = self.0;
        let table = screaming(proto_name);

        writeln!(out, "/// The methods of `{package}.{proto_name}`.")?;
        writeln!(out, "pub static {table}: crate::rpc::Service = crate::rpc::Service {{")?;
        writeln!(
            out,
            "    name: \"{package}.{proto_name}\", package: \"{package}\", subject: \"svc.{package}\", methods: &["
        )?;
        for method in methods {
            let idempotent = method.options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown;
            writeln!(
                out,
                "        crate::rpc::Method {{ full_name: \"{package}.{proto_name}/{rpc}\", name: \"{operation}\", subject: \"svc.{package}.{operation}\", package: \"{package}\", \
                 idempotent: {idempotent}, streaming: {streaming}, input: \"{input}\", output: \"{output}\" }},",
                rpc = method.proto_name,
                operation = method.name,
                streaming = method.server_streaming,
                input = method.input_proto_type.trim_start_matches('.'),
                output = method.output_proto_type.trim_start_matches('.'),
            )?;
        }
        writeln!(out, "    ],\n}};\n")?;

        let mut described = String::new();
        comments.append_with_indent(0, &mut described);
        writeln!(
            out,
            "{described}/// The contract of `{package}.{proto_name}`: implemented by the service, by its client and by fakes in tests."
        )?;
        writeln!(out, "pub trait {name}: Send + Sync + 'static {{")?;
        for method in methods {
            method.comments.append_with_indent(1, out);
            if method.comments.leading.is_empty() {
                writeln!(out, "    /// `svc.{package}.{}`", method.name)?;
            }
            writeln!(out, "    {} + Send;", signature(method))?;
        }
        writeln!(out, "}}\n")?;

        writeln!(out, "impl<S: {name}> {name} for ::std::sync::Arc<S> {{")?;
        for method in methods {
            writeln!(
                out,
                "    async fn {method}(&self, request: {}) -> {} {{\n        (**self).{method}(request).await\n    }}",
                method.input_type,
                output(method),
                method = method.name,
            )?;
        }
        writeln!(out, "}}\n")?;

        writeln!(
            out,
            "/// Serves an implementation of [`{name}`].\n#[derive(Debug)]\npub struct {name}Server<S>(pub S);\n"
        )?;
        writeln!(out, "impl<S: {name}> crate::rpc::Server for {name}Server<S> {{")?;
        writeln!(out, "    const SERVICE: &'static crate::rpc::Service = &{table};\n")?;
        writeln!(
            out,
            "    async fn call(&self, method: usize, request: ::bytes::Bytes) -> Result<crate::rpc::Reply, crate::rpc::Error> {{"
        )?;
        writeln!(out, "        match method {{")?;
        for (index, method) in methods.iter().enumerate() {
            let kind = if method.server_streaming { "stream" } else { "message" };
            writeln!(
                out,
                "            {index} => self.0.{}(crate::rpc::decode(request)?).await.map(crate::rpc::Reply::{kind}),",
                method.name
            )?;
        }
        writeln!(
            out,
            "            other => Err(crate::rpc::Error::unimplemented(&{table}, other)),\n        }}\n    }}\n}}\n"
        )?;

        writeln!(
            out,
            "/// Calls a remote [`{name}`].\n#[derive(Clone, Debug)]\npub struct {name}Client(crate::rpc::Channel);\n"
        )?;
        writeln!(out, "impl From<crate::rpc::Channel> for {name}Client {{")?;
        writeln!(out, "    fn from(channel: crate::rpc::Channel) -> Self {{\n        Self(channel)\n    }}\n}}\n")?;
        writeln!(out, "impl {name} for {name}Client {{")?;
        for (index, method) in methods.iter().enumerate() {
            let verb = if method.server_streaming { "streaming" } else { "unary" };
            writeln!(
                out,
                "    async fn {}(&self, request: {}) -> {} {{\n        self.0.{verb}(&{table}.methods[{index}], &request).await\n    }}",
                method.name,
                method.input_type,
                output(method),
            )?;
        }
        writeln!(out, "}}")
    }
}

fn signature(method: &prost_build::Method) -> String {
    format!("fn {}(&self, request: {}) -> impl Future<Output = {}>", method.name, method.input_type, output(method))
}

fn output(method: &prost_build::Method) -> String {
    if method.server_streaming {
        format!("Result<crate::rpc::Stream<{}>, crate::rpc::Error>", method.output_type)
    } else {
        format!("Result<{}, crate::rpc::Error>", method.output_type)
    }
}

/// The code that spans packages: the tables of all services and events, and the error field of every response.
fn contract(files: &[&FileDescriptorProto]) -> Result<String, Box<dyn std::error::Error>> {
    let requests = requests(files)?;
    let responses: BTreeSet<&str> = methods(files).map(|(_, method)| method.output_type()).collect();
    let mut out = String::new();
    let mut services = Vec::new();
    let mut events = Vec::new();

    for file in files {
        messages::write(&mut out, file, &requests)?;
        let package = file.package();
        let folder = Path::new(file.name()).parent().unwrap_or(Path::new("")).display().to_string();
        if folder != package.replace('.', "/") {
            return Err(format!(
                "{}: package `{package}` belongs in the folder `{}`",
                file.name(),
                package.replace('.', "/")
            )
            .into());
        }
        for service in &file.service {
            services.push(format!("&crate::{}::{}", rust_path(package), screaming(service.name())));
        }
        for message in &file.message_type {
            let full = format!(".{package}.{}", message.name());
            let path = format!("crate::{}::{}", rust_path(package), message.name());
            let is_request = requests.contains_key(full.as_str());
            if is_request && !first_field_is(message, META) {
                return Err(
                    format!("{}: request `{full}` must start with `common.v1.Meta meta = 1`", file.name()).into()
                );
            }
            if responses.contains(full.as_str()) {
                if !first_field_is(message, ERROR) {
                    return Err(format!(
                        "{}: response `{full}` must start with `common.v1.Error error = 1`",
                        file.name()
                    )
                    .into());
                }
                writeln!(out, "impl crate::rpc::Response for {path} {{")?;
                writeln!(
                    out,
                    "    fn take_error(&mut self) -> Option<crate::common::v1::Error> {{\n        self.error.take()\n    }}"
                )?;
                writeln!(
                    out,
                    "    fn failed(error: crate::common::v1::Error) -> Self {{\n        Self {{ error: Some(error), ..Self::default() }}\n    }}\n}}"
                )?;
                messages::payload(&mut out, &path, message);
            }
            if !is_request && first_field_is(message, META) {
                if message.name().ends_with("Request") {
                    return Err(format!("{}: `{full}` is not the request of any rpc", file.name()).into());
                }
                let subject = event_subject(package, message.name())
                    .ok_or_else(|| format!("{}: package of event `{full}` has no version", file.name()))?;
                writeln!(
                    out,
                    "impl crate::rpc::Event for {path} {{\n    const SUBJECT: &'static str = \"{subject}\";"
                )?;
                writeln!(
                    out,
                    "    fn set_meta(&mut self, meta: crate::common::v1::Meta) {{\n        self.meta = Some(meta);\n    }}\n}}"
                )?;
                events.push(format!(
                    "crate::rpc::EventInfo {{ message: \"{}\", package: \"{package}\", subject: \"{subject}\" }}",
                    &full[1..]
                ));
            }
        }
    }
    writeln!(
        out,
        "/// Every service of the fleet, ordered by package.\npub static SERVICES: &[&crate::rpc::Service] = &[{}];",
        services.join(", ")
    )?;
    writeln!(
        out,
        "/// Every event of the fleet, ordered by package.\npub static EVENTS: &[crate::rpc::EventInfo] = &[{}];",
        events.join(", ")
    )?;
    Ok(out)
}

/// Each request with the method that it is for.
fn requests(files: &[&FileDescriptorProto]) -> Result<Methods, String> {
    let mut requests = Methods::new();
    for file in files {
        for service in &file.service {
            let table = format!("crate::{}::{}", rust_path(file.package()), screaming(service.name()));
            for (index, method) in service.method.iter().enumerate() {
                let request = method.input_type().to_owned();
                if requests.insert(request, format!("{table}.methods[{index}]")).is_some() {
                    return Err(format!(
                        "{}: `{}` is the request of two rpcs; each has its own",
                        file.name(),
                        method.input_type()
                    ));
                }
            }
        }
    }
    Ok(requests)
}

fn methods<'a>(files: &'a [&FileDescriptorProto]) -> impl Iterator<Item = (&'a str, &'a MethodDescriptorProto)> {
    files.iter().flat_map(|file| {
        file.service.iter().flat_map(|service| service.method.iter().map(|method| (file.package(), method)))
    })
}

fn first_field_is(message: &DescriptorProto, type_name: &str) -> bool {
    message.field.iter().any(|field| field.number() == 1 && field.type_name() == type_name)
}

fn screaming(name: &str) -> String {
    snake(name).to_uppercase()
}
