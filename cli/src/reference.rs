//! The reference of the services: what each does, its methods and events, and who calls whom, made of the contracts and the
//! manifests.

mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::contract;
use crate::manifest::{Manifests, ServiceManifest};
use crate::model::desired::Role;
use crate::problem::{Problems, counted};

/// Name of the document in the folder of documents.
pub(crate) const DOCUMENT: &str = "services.md";
/// Name of its picture, which the document shows.
pub(crate) const PICTURE: &str = "services.svg";

/// All services, and what they have to do with each other.
#[derive(Debug)]
pub(crate) struct Reference {
    services: Vec<Entry>,
}

/// A service.
#[derive(Debug)]
struct Entry {
    name: String,
    is_gateway: bool,
    /// Comments of what it serves.
    about: Vec<String>,
    methods: Vec<Method>,
    calls: BTreeSet<String>,
    /// Event, and what it is.
    publishes: BTreeMap<String, String>,
    /// Event, and the service that publishes it, if one does.
    consumes: BTreeMap<String, Option<String>>,
    buckets: BTreeSet<String>,
    caches: BTreeSet<String>,
}

#[derive(Debug)]
struct Method {
    name: String,
    subject: &'static str,
    about: String,
    is_public: bool,
    is_idempotent: bool,
    is_streaming: bool,
}

impl Reference {
    /// Reads the comments of the contracts in `proto` and connects them with the manifests.
    ///
    /// # Errors
    /// Everything that is wrong with the `.proto` files.
    pub(crate) fn new(manifests: &Manifests, proto: &Path) -> Result<Self, Problems> {
        let comments = contract::comments(proto)?;
        let services = manifests.services.values().map(|service| Entry::new(service, manifests, &comments)).collect();
        Ok(Self { services })
    }

    /// The picture of who calls whom and who gets whose events, as SVG.
    pub(crate) fn picture(&self) -> String {
        picture::svg(&self.services)
    }

    /// The document, as Markdown.
    pub(crate) fn document(&self) -> String {
        let methods = self.services.iter().map(|service| service.methods.len()).sum::<usize>();
        let public = self.services.iter().flat_map(|service| &service.methods).filter(|method| method.is_public);
        let mut text = format!(
            "# Services\n\n\
             Written by `natsctl docs` from the contracts in `proto/` and the manifests; do not edit it.\n\n\
             {} with {}, {} of them public: reachable through the gateway.\n\n\
             ![Calls and events of the services]({PICTURE})\n\n\
             | service | methods | calls | publishes | consumes |\n| --- | --- | --- | --- | --- |\n",
            counted(self.services.len(), "service"),
            counted(methods, "method"),
            public.count(),
        );
        for service in &self.services {
            let numbers = [service.publishes.len(), service.consumes.len()];
            let [publishes, consumes] =
                numbers.map(|number| if number == 0 { String::new() } else { number.to_string() });
            let calls = if service.is_gateway {
                "all public methods".to_owned()
            } else {
                joined(service.calls.iter().map(|name| link(name)))
            };
            text.push_str(&format!(
                "| {} | {} | {calls} | {publishes} | {consumes} |\n",
                link(&service.name),
                service.methods.len()
            ));
        }
        for service in &self.services {
            text.push_str(&service.section(self));
        }
        text
    }

    fn callers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.services.iter().filter(move |other| !other.is_gateway && other.calls.contains(name))
    }

    fn consumers<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.services.iter().filter(move |other| other.consumes.contains_key(event))
    }
}

impl Entry {
    fn new(service: &ServiceManifest, manifests: &Manifests, comments: &BTreeMap<String, String>) -> Self {
        let comment = |name: &str| comments.get(name).cloned().unwrap_or_default();
        let served: Vec<_> = proto::SERVICES.iter().filter(|served| service.serves.contains(served.package)).collect();
        let methods = served.iter().flat_map(|served| served.methods).map(|method| Method {
            name: method.full_name.rsplit_once('/').map_or(method.full_name, |(_, name)| name).to_owned(),
            subject: method.subject,
            about: first_sentence(&comment(method.full_name)),
            is_public: service.public.contains(method.full_name),
            is_idempotent: method.idempotent,
            is_streaming: method.streaming,
        });
        let message = |subject: &str| proto::EVENTS.iter().find(|event| event.subject == subject);
        let publisher = |event: &str| {
            let found = manifests.services.values().find(|other| other.publishes.contains(event));
            found.map(|other| other.name.to_string())
        };
        Self {
            name: service.name.to_string(),
            is_gateway: service.role == Role::Gateway,
            about: served.iter().map(|served| comment(served.name)).filter(|text| !text.is_empty()).collect(),
            methods: methods.collect(),
            calls: manifests.callees(service),
            publishes: service
                .publishes
                .iter()
                .map(|event| {
                    (event.clone(), message(event).map_or(String::new(), |it| first_sentence(&comment(it.message))))
                })
                .collect(),
            consumes: service.consumes.keys().map(|event| (event.to_string(), publisher(event))).collect(),
            buckets: service.buckets.keys().map(ToString::to_string).collect(),
            caches: service.caches.keys().map(ToString::to_string).collect(),
        }
    }

    fn section(&self, all: &Reference) -> String {
        let mut text = format!("\n## {}\n", self.name);
        if self.is_gateway {
            text.push_str(
                "\nServes the public methods of the other services as JSON over HTTP: see [gateway.md](gateway.md).\n",
            );
            return text;
        }
        for about in &self.about {
            text.push_str(&format!("\n{}\n", paragraph(about)));
        }
        if !self.methods.is_empty() {
            text.push_str("\n| method | subject | | |\n| --- | --- | --- | --- |\n");
        }
        for method in &self.methods {
            let properties =
                [(method.is_public, "public"), (method.is_idempotent, "idempotent"), (method.is_streaming, "stream")];
            let properties = joined(properties.iter().filter(|(holds, _)| *holds).map(|(_, name)| (*name).to_owned()));
            let Method { name, subject, about, .. } = method;
            text.push_str(&format!("| {name} | `{subject}` | {properties} | {} |\n", about.replace('|', "\\|")));
        }
        let callers = joined(all.callers(&self.name).map(|caller| link(&caller.name)));
        let facts = [
            ("Calls", joined(self.calls.iter().map(|name| link(name)))),
            ("Called by", callers),
            ("Buckets", joined(self.buckets.iter().map(|name| format!("`{name}`")))),
            ("Caches", joined(self.caches.iter().map(|name| format!("`{name}`")))),
        ];
        let facts: Vec<String> = facts
            .into_iter()
            .filter(|(_, what)| !what.is_empty())
            .map(|(name, what)| format!("{name}: {what}."))
            .collect();
        if !facts.is_empty() {
            text.push_str(&format!("\n{}\n", facts.join(" ")));
        }
        if !self.publishes.is_empty() {
            text.push_str("\nPublishes:\n\n");
        }
        for (event, about) in &self.publishes {
            let consumers = joined(all.consumers(event).map(|consumer| link(&consumer.name)));
            let consumers = if consumers.is_empty() { String::new() } else { format!(" Consumed by {consumers}.") };
            text.push_str(format!("- `{event}`: {about}{consumers}").trim_end_matches([':', ' ']));
            text.push('\n');
        }
        if !self.consumes.is_empty() {
            text.push_str("\nConsumes:\n\n");
        }
        for (event, publisher) in &self.consumes {
            let publisher = publisher.as_deref().map_or_else(|| "no service of this fleet".to_owned(), link);
            text.push_str(&format!("- `{event}`, published by {publisher}\n"));
        }
        text
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{name})")
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// A comment on one line for each of its paragraphs.
fn paragraph(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// The beginning of a comment, up to the first full stop that ends a sentence.
fn first_sentence(comment: &str) -> String {
    let text = paragraph(comment.split("\n\n").next().unwrap_or_default());
    match text.find(". ") {
        Some(end) => text[..=end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_shortened_to_its_first_sentence() {
        let check = |comment: &str, expected: &str| assert_eq!(first_sentence(comment), expected);
        check("", "");
        check("Adds a rule.", "Adds a rule.");
        check(" Adds a rule. INVALID_ARGUMENT: it\n exists.", "Adds a rule.");
        check("Adds a rule\n that is valid for 1.5 s.\n\n More.", "Adds a rule that is valid for 1.5 s.");
    }
}
