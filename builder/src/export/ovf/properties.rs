//! The product, and the settings as its properties.

use firstboot::settings::schema::{FIELDS, Field, Kind};

use crate::export::xml::Xml;
use crate::recipe::Recipe;

/// The one `ProductSection`. It is not required: a host without vCenter, which keeps no properties, would refuse the import.
pub(super) fn product(xml: &mut Xml, recipe: &Recipe) {
    let image = &recipe.image;
    xml.within("ProductSection", &[("ovf:required", "false")], |xml| {
        xml.leaf("Info", &[], "The appliance and its settings");
        xml.leaf("Product", &[], &image.title);
        xml.leaf("Vendor", &[], &image.export.vendor);
        xml.leaf("Version", &[], &image.app.tag);
        let full = format!("{} {}, imgbuild {}", image.name, image.app.tag, env!("CARGO_PKG_VERSION"));
        xml.leaf("FullVersion", &[], &full);
        if let Some(url) = &image.export.product_url {
            xml.leaf("ProductUrl", &[], url);
        }
        xml.leaf("AppUrl", &[], "https://${domain}/");
        let mut category = "";
        for field in FIELDS {
            if field.category != category {
                category = field.category;
                xml.leaf("Category", &[], category);
            }
            property(xml, field);
        }
    });
}

fn property(xml: &mut Xml, field: &Field) {
    let key = field.key();
    let qualifiers = qualifiers(field);
    let mut attributes = vec![("ovf:key", key.as_str()), ("ovf:type", kind(field.kind))];
    if let Some(qualifiers) = &qualifiers {
        attributes.push(("ovf:qualifiers", qualifiers));
    }
    attributes.push(("ovf:userConfigurable", "true"));
    if field.is_secret() {
        attributes.push(("ovf:password", "true"));
    }
    // Without a value, even an empty one, vSphere takes a property for one that has to be filled in.
    attributes.push(("ovf:value", field.default.unwrap_or_default()));
    xml.within("Property", &attributes, |xml| {
        xml.leaf("Label", &[], field.label);
        xml.leaf("Description", &[], field.description);
    });
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "boolean",
        Kind::Port | Kind::Number(..) => "uint16",
        Kind::Text(_)
        | Kind::Password(_)
        | Kind::Pem(_)
        | Kind::SecretPem(_)
        | Kind::Choice(_)
        | Kind::List(_)
        | Kind::Pairs(_) => "string",
    }
}

/// Never a least length: the empty value must be allowed.
fn qualifiers(field: &Field) -> Option<String> {
    match field.kind {
        Kind::Text(longest)
        | Kind::Password(longest)
        | Kind::Pem(longest)
        | Kind::SecretPem(longest)
        | Kind::List(longest)
        | Kind::Pairs(longest) => Some(format!("MaxLen({longest})")),
        Kind::Choice(words) => {
            let empty = if field.default.is_none() { "\"\"," } else { "" };
            Some(format!("ValueMap{{{empty}\"{}\"}}", words.join("\",\"")))
        }
        Kind::Flag | Kind::Port | Kind::Number(..) => None,
    }
}
