//! First boot of the appliance.
