//! The appliance as a whole: built by the command line, booted in the lab of the test kit, set up by its own first boot, and then
//! looked at from outside, as its users and its attackers would.
//!
//! A machine without KVM takes minutes to boot, so the checks share two boots and run in this order:
//!
//! 1. SeaBIOS, cold, in the lab, configured by an OVF environment on a CD-ROM; its power is cut three times on its way to green; what
//!    goes wrong and what is changed later; a reboot; the same on other hardware; power off; a look at the disks, and at what the data disk
//!    might have been at other moments;
//! 2. OVMF, on QEMU's own network, configured by fw_cfg, by `imgbuild smoke`: the image that is built of RPM packages out of the
//!    stand-in for CentOS 7's repositories. So each image meets one firmware, each firmware one image, and each source of packages is
//!    booted.
//!
//! A check that needs what an earlier one was to make says so instead of passing. `cargo test --package imgbuild --test vm`.

mod account;
mod build;
mod changes;
mod damage;
mod exposure;
mod faults;
mod first_boot;
mod power;
mod power_cut;
mod second;
mod site;
mod stand_in;
mod tampered;
mod verbs;
mod web;

use std::process::ExitCode;
use std::time::Duration;

use site::Site;
use testkit::scenario::{self, Check};

/// What CI has left for the machines.
const LIMIT: Duration = Duration::from_secs(56 * 60);

/// In their order; names say what holds.
const CHECKS: &[Check<Site>] = &[
    ("image_is_built_and_verified_by_the_command_line", build::image_is_built_and_verified),
    ("ova_and_raw_are_the_same_disk_as_the_qcow2", verbs::ova_and_raw_are_the_same_disk),
    ("ova_goes_through_the_import_of_govmomi", verbs::ova_is_imported),
    ("killed_export_is_swept_by_the_next_build", build::killed_export_is_swept),
    ("inspect_knows_the_packages", verbs::inspect_knows_the_packages),
    ("shell_is_root_in_the_tree", verbs::shell_is_root_in_the_tree),
    ("verify_names_what_is_wrong_with_a_tampered_image", tampered::faults_are_named),
    ("verify_refuses_a_disk_that_refers_to_other_files", tampered::references_are_refused),
    ("boot_shows_the_console_and_ends_with_ctrl_c", build::boot_shows_the_console),
    ("first_boot_turns_green_after_power_cuts", first_boot::turns_green),
    ("power_cuts_left_nothing_half_made_or_made_twice", power_cut::nothing_was_made_twice),
    (
        "both_media_are_read_and_the_ovf_environment_wins",
        first_boot::both_media_are_read_and_the_environment_wins,
    ),
    ("configuration_is_stored_for_root_alone", first_boot::configuration_is_stored),
    ("network_has_slaac_and_the_fixed_address_and_ipv4_as_client", first_boot::network_is_the_articles),
    ("administrator_logs_in_by_key_alone", first_boot::administrator_logs_in),
    ("about_answers_over_ipv6_with_the_issued_chain", web::about_has_the_issued_chain),
    ("http_redirects_to_https", web::http_redirects),
    ("instance_api_names_the_domain", web::instance_api),
    ("websocket_without_token_is_401", web::websocket_needs_a_token),
    ("ipv4_is_refused_on_80_and_443", exposure::no_web_over_ipv4),
    ("inner_services_are_refused_from_outside", exposure::inner_services_are_closed),
    ("sign_up_sends_its_mail_over_ipv4", account::sign_up),
    ("link_in_the_mail_activates", account::activate),
    ("make_admin_opens_the_settings", account::make_admin),
    ("uploaded_picture_gets_a_thumbnail", account::upload),
    ("status_arrives_on_the_websocket", account::status_on_the_websocket),
    ("owner_has_the_password_of_the_file_and_nobody_elses_account", account::owner_has_the_password),
    ("no_link_is_named_and_heals", faults::link),
    ("no_router_advertisement_is_named_and_heals", faults::router_advertisement),
    ("duplicate_address_is_named_and_heals", faults::duplicate_address),
    ("redis_that_does_not_start_is_named_and_heals", faults::redis),
    ("postgresql_that_does_not_start_is_named_and_heals", faults::postgresql),
    ("full_disk_is_named_and_heals", faults::disk),
    ("damaged_config_volume_is_named_and_changes_nothing", faults::config_volume),
    ("relay_that_refuses_is_named_and_heals", faults::relay),
    ("instance_serves_while_dns_caa_or_clock_keep_it_from_a_certificate", faults::certificate),
    ("name_is_proven_on_port_443_while_port_80_is_shut", changes::name_is_proven_on_port_443),
    ("sidekiq_is_split_by_queue_and_joined_again", changes::sidekiq_is_split_and_joined),
    ("firewall_is_switched_off_and_on", changes::firewall_is_switched),
    ("wrong_gateway_is_taken_back", changes::wrong_gateway_is_taken_back),
    ("reboot_comes_back_with_the_same_secrets", power::reboot_keeps_everything),
    ("damaged_data_disk_is_a_question_and_heals_by_its_remedy", damage::heals_by_its_remedy),
    ("copy_of_the_machine_asks_before_it_serves", changes::copy_asks_before_it_serves),
    ("power_off_leaves_clean_file_systems", power::off_leaves_clean_file_systems),
    ("second_machine_and_the_image_share_no_secret_with_the_first", second::shares_no_secret),
    ("data_disk_is_whole_at_any_moment", power_cut::disk_is_whole_at_any_moment),
    ("stand_in_for_centos_is_built_without_network", stand_in::image_is_built),
    ("rpm_finds_no_changes_that_overlays_do_not_state", stand_in::rpm_finds_no_other_changes),
    ("rpm_database_is_the_lock", stand_in::packages_are_those_of_the_lock),
    ("dnf_resolves_to_the_same_packages", stand_in::dnf_resolves_the_same),
    ("stand_in_boots_by_ovmf_and_passes_smoke", stand_in::smoke_by_ovmf),
];

/// With `IMGBUILD_POWER_CUTS`: nothing but first boots, and more power cuts.
const CAMPAIGN: &[Check<Site>] = &[
    ("image_is_built_and_verified_by_the_command_line", build::image_is_built_and_verified),
    ("ova_and_raw_are_the_same_disk_as_the_qcow2", verbs::ova_and_raw_are_the_same_disk),
    ("every_power_cut_is_survived", power_cut::campaign),
];

fn main() -> ExitCode {
    let campaign = std::env::var_os(power_cut::COUNT).is_some();
    if campaign {
        scenario::run(Site::default, Duration::MAX, CAMPAIGN)
    } else {
        scenario::run(Site::default, LIMIT, CHECKS)
    }
}
