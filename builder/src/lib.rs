//! The builder: from a recipe to a verified, bootable image.
