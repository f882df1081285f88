//! Import circles between the files of one crate.
//!
//! File A uses file B if A, tests apart, names an item that B defines, by whatever path. So `mod b;` and
//! `pub use b::Item;` alone are no use of B. A file includes the files of its submodules: it may use them freely, and
//! what they use outside of it, it uses too. Files that use each other, directly or through others, form a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItemFn, Item, ItemMod, ItemUse, Lit, Macro, Meta, UseTree, Visibility};

/// Names that lead to names; longer chains do not occur, and circles of names end here.
const MAX_ALIASES: usize = 16;

#[derive(Debug)]
pub struct Circle {
    pub files: BTreeSet<PathBuf>,
    /// Which file uses what of which other, inside the circle.
    arrows: BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>,
}

impl Circle {
    /// The circle with its arrows, files named from `folder`.
    pub fn shown(&self, folder: &Path) -> String {
        let short = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let arrows = self.arrows.iter().map(|((from, to), items)| {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            format!("\n    {} → {} ({})", short(from), short(to), items.join(", "))
        });
        format!("{} files use each other in a circle:{}", self.files.len(), arrows.collect::<String>())
    }
}

/// All circles of the crate whose root is the file `source`. `read` gives a file's text, if there is one.
pub fn find(source: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Result<Vec<Circle>> {
    let mut crate_ = Crate { files: Vec::new(), parents: Vec::new(), modules: Vec::new(), read };
    crate_.add_file(source.to_owned(), source.parent().unwrap_or(source), None)?;
    Ok(crate_.circles())
}

type Name = Vec<String>;

struct Crate<'a> {
    files: Vec<PathBuf>,
    /// The file that each file is a submodule of.
    parents: Vec<Option<usize>>,
    modules: Vec<Module>,
    read: &'a dyn Fn(&Path) -> Option<String>,
}

#[derive(Default)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    /// What `use` brings in, by the name it has here.
    aliases: BTreeMap<String, Name>,
    globs: Vec<Name>,
    named: BTreeSet<Name>,
}

/// What a name stands for, if it is of this crate.
enum Meaning {
    Module(usize),
    Item { file: usize, name: String },
}

impl Crate<'_> {
    /// Adds a file and the files below it. `folder` is where the files of its modules lie.
    fn add_file(&mut self, path: PathBuf, folder: &Path, parent: Option<usize>) -> Result<usize> {
        let text = (self.read)(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        self.files.push(path);
        self.parents.push(parent.map(|parent| self.modules[parent].file));
        self.add_module(&syntax.items, self.files.len() - 1, folder, parent)
    }

    fn add_module(
        &mut self,
        items: &[Item],
        file: usize,
        folder: &Path,
        parent: Option<usize>,
    ) -> Result<usize> {
        let here = self.modules.len();
        self.modules.push(Module { file, parent, ..Module::default() });
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            if let Item::Mod(child) = item {
                let name = child.ident.to_string();
                let index = self.add_child(child, file, folder, here)?;
                self.modules[here].children.insert(name, index);
            } else {
                self.modules[here].items.extend(defined(item));
                self.modules[here].visit_item(item);
            }
        }
        Ok(here)
    }

    fn add_child(&mut self, child: &ItemMod, file: usize, folder: &Path, parent: usize) -> Result<usize> {
        let name = child.ident.to_string();
        let below = folder.join(&name);
        if let Some((_, items)) = &child.content {
            return self.add_module(items, file, &below, Some(parent));
        }
        let told = child.attrs.iter().find_map(path_attribute);
        let beside = told.map_or_else(|| folder.join(format!("{name}.rs")), |told| folder.join(told));
        let path = if (self.read)(&beside).is_some() { beside } else { below.join("mod.rs") };
        self.add_file(path, &below, Some(parent))
    }

    fn resolve(&self, module: usize, name: &[String], aliases: usize) -> Option<Meaning> {
        let (first, rest) = name.split_first()?;
        let start = match first.as_str() {
            "crate" => Meaning::Module(0),
            "self" => Meaning::Module(module),
            "super" => Meaning::Module(self.modules[module].parent?),
            first => self.look_up(module, first, rest.is_empty(), aliases)?,
        };
        match start {
            Meaning::Module(inner) if !rest.is_empty() => self.resolve(inner, rest, aliases),
            // What follows an item is its variant, or what belongs to it.
            found => Some(found),
        }
    }

    /// What a single name means in a module; the `last` name of a path means an item rather than a module.
    fn look_up(&self, module: usize, name: &str, last: bool, aliases: usize) -> Option<Meaning> {
        let here = &self.modules[module];
        let child = here.children.get(name).map(|child| Meaning::Module(*child));
        if here.items.contains(name) && (last || child.is_none()) {
            return Some(Meaning::Item { file: here.file, name: name.to_owned() });
        }
        if child.is_some() {
            return child;
        }
        let aliases = aliases.checked_sub(1)?;
        if let Some(path) = here.aliases.get(name) {
            return self.resolve(module, path, aliases);
        }
        here.globs.iter().find_map(|glob| match self.resolve(module, glob, aliases)? {
            Meaning::Module(inner) => self.look_up(inner, name, last, aliases),
            Meaning::Item { .. } => None,
        })
    }

    fn arrows(&self) -> BTreeMap<(usize, usize), BTreeSet<String>> {
        let mut arrows: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            for named in &module.named {
                let Some(Meaning::Item { file, name }) = self.resolve(index, named, MAX_ALIASES) else {
                    continue;
                };
                let around = self.with_files_around(file);
                for user in
                    self.with_files_around(module.file).iter().take_while(|user| !around.contains(user))
                {
                    arrows.entry((*user, file)).or_default().insert(name.clone());
                }
            }
        }
        arrows
    }

    /// A file, the file it is a submodule of, and so on.
    fn with_files_around(&self, file: usize) -> Vec<usize> {
        std::iter::successors(Some(file), |file| self.parents[*file]).collect()
    }

    fn circles(&self) -> Vec<Circle> {
        let arrows = self.arrows();
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|from| reach(from, &arrows)).collect();
        let mut circles: Vec<Circle> = Vec::new();
        for from in 0..self.files.len() {
            let circle: BTreeSet<usize> =
                reached[from].iter().copied().filter(|to| reached[*to].contains(&from)).collect();
            // Each circle is told once, at its first file.
            if circle.first() == Some(&from) {
                let path = |file: &usize| self.files[*file].clone();
                let inside = arrows.iter().filter(|((a, b), _)| circle.contains(a) && circle.contains(b));
                circles.push(Circle {
                    files: circle.iter().map(path).collect(),
                    arrows: inside.map(|((a, b), items)| ((path(a), path(b)), items.clone())).collect(),
                });
            }
        }
        circles
    }
}

/// All files that a file uses, directly or through others. It is among them only if it stands in a circle.
fn reach(from: usize, arrows: &BTreeMap<(usize, usize), BTreeSet<String>>) -> BTreeSet<usize> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        let next = arrows.range((file, 0)..=(file, usize::MAX)).map(|((_, to), _)| *to);
        open.extend(next.filter(|to| reached.insert(*to)));
    }
    reached
}

/// A module's text is read for what it names.
impl<'ast> Visit<'ast> for Module {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if is_for_tests(&item.attrs) {
            return;
        }
        let imports_for_itself = matches!(item.vis, Visibility::Inherited);
        for (name, path) in flat(&item.tree) {
            if imports_for_itself {
                self.named.insert(path.clone());
            }
            match name {
                Some(name) => drop(self.aliases.insert(name, path)),
                None => self.globs.push(path),
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.named.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        visit::visit_macro(self, called);
        self.visit_tokens(called.tokens.clone());
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

impl Module {
    /// The paths in what a macro is given, which is not parsed.
    fn visit_tokens(&mut self, tokens: TokenStream) {
        let mut path = Name::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.named.insert(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    self.named.insert(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.visit_tokens(group.stream());
                    }
                }
            }
        }
        self.named.insert(path);
    }
}

/// Each name that a `use` brings in, with its full path; `None` for all names of a module.
fn flat(tree: &UseTree) -> Vec<(Option<String>, Name)> {
    let below = |first: &syn::Ident, tree| {
        let longer = flat(tree).into_iter().map(|(name, mut path): (Option<String>, Name)| {
            path.insert(0, first.to_string());
            // `use a::b::{self}` is `use a::b`.
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let name = name.map(|name| if name == "self" { first.to_string() } else { name });
            (name, path)
        });
        longer.collect()
    };
    match tree {
        UseTree::Path(path) => below(&path.ident, &path.tree),
        UseTree::Name(name) => vec![(Some(name.ident.to_string()), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => vec![(Some(rename.rename.to_string()), vec![rename.ident.to_string()])],
        UseTree::Glob(_) => vec![(None, Name::new())],
        UseTree::Group(group) => group.items.iter().flat_map(flat).collect(),
    }
}

/// `#[cfg(test)]`
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// `#[path = "x.rs"]`
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(literal) if pair.path.is_ident("path") => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn defined(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate of these files, each as its files' names and its arrows.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let read = |path: &Path| {
            let name = path.strip_prefix("src").ok()?.to_str()?;
            files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
        };
        let found = find(Path::new("src/lib.rs"), &read).unwrap();
        found.iter().map(|circle| circle.shown(Path::new("src"))).collect()
    }

    #[test]
    fn files_that_use_each_other_are_a_circle_however_they_spell_it() {
        for (a, b) in [
            ("use crate::b::B; pub struct A(B);", "use crate::a::A; pub struct B(Box<A>);"),
            ("pub struct A(super::b::B);", "pub struct B(Box<crate::a::A>);"),
            ("use super::b; pub struct A(b::B);", "use crate::{a::{self}}; pub struct B(Box<a::A>);"),
            ("use crate::b::*; pub struct A(B);", "use crate::a::A as Other; pub struct B(Box<Other>);"),
            ("use crate::B; pub struct A(B);", "use super::*; pub struct B(Box<A>);"),
            (
                "pub struct A; fn f() { println!(\"{}\", crate::b::B::new(1)); }",
                "use crate::A; pub struct B;",
            ),
            ("pub struct A; fn f() { use crate::b::B; }", "pub struct B; impl B { fn f(_: super::a::A) {} }"),
        ] {
            let lib = "mod a; mod b; pub use a::A; pub use b::B;";
            let found = circles(&[("lib.rs", lib), ("a.rs", a), ("b.rs", b)]);
            let shown = "2 files use each other in a circle:\n    a.rs → b.rs (B)\n    b.rs → a.rs (A)";
            assert_eq!(found, [shown], "{a} / {b}");
        }
    }

    #[test]
    fn a_circle_may_pass_through_others_and_through_submodules() {
        let lib = "mod a; mod d;";
        let a = "mod b; mod c; pub struct A;";
        let b = "pub fn b() { super::c::c() }";
        let c = "pub fn c() { crate::d::d() }";
        let files = |d| [("lib.rs", lib), ("a.rs", a), ("a/b.rs", b), ("a/c/mod.rs", c), ("d.rs", d)];
        let through_others = circles(&files("pub fn d() { crate::a::b::b() }"));
        assert!(through_others[0].starts_with("3 files"), "{through_others:?}");
        assert!(through_others[0].contains("a/b.rs → a/c/mod.rs (c)"), "{through_others:?}");
        let through_a_submodule = circles(&files("pub fn d() { crate::a::A; }"));
        assert_eq!(
            through_a_submodule,
            ["2 files use each other in a circle:\n    a.rs → d.rs (d)\n    d.rs → a.rs (A)"]
        );
        assert_eq!(circles(&files("pub fn d() {}")), [""; 0]);
    }

    #[test]
    fn a_file_may_use_its_submodules_and_they_may_use_it() {
        let lib = "mod a; mod inner { pub struct I; } pub use a::A; pub struct L(A); pub type R = std::fmt::Result;";
        let a = "use crate::{L, inner::I}; mod b; pub struct A(L, I, super::R, b::B);";
        let b = "use super::A; pub struct B(Box<A>, Box<crate::L>);";
        assert_eq!(circles(&[("lib.rs", lib), ("a.rs", a), ("a/b.rs", b)]), [""; 0]);
    }

    #[test]
    fn tests_use_what_they_like() {
        let a = "use crate::b::B; pub struct A(B); #[cfg(test)] mod tests;";
        for b in [
            "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            "pub struct B; #[cfg(test)] use crate::a::A;",
            "pub struct B; impl B { #[cfg(test)] fn f() { crate::a::A::new() } }",
        ] {
            assert_eq!(circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]), [""; 0], "{b}");
        }
    }
}
