//! What one channel had to say: offers, and everything that kept it from offering more, told apart by what follows from it.

use anyhow::Result;

use super::Offer;
use super::imds::Asked;

/// Something that is ours, can be read, and is wrong: it must be corrected, not passed over.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(pub(super) String);

/// What one channel had to say.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// In order of precedence.
    pub(super) offers: Vec<Offer>,
    /// What is ours and wrong.
    pub(super) wrong: Vec<String>,
    /// What could not be read, or is somebody else's.
    pub(super) damaged: Vec<String>,
    /// What may answer later.
    pub(super) waiting: Vec<String>,
    /// What was understood and passed over.
    pub(super) notes: Vec<String>,
}

impl Said {
    pub(super) fn take(&mut self, result: Result<Vec<Offer>>) {
        match result {
            Ok(offers) => self.offers.extend(offers),
            Err(error) if error.is::<Wrong>() => self.wrong.push(format!("{error:#}")),
            Err(error) => self.damaged.push(format!("{error:#}")),
        }
    }

    pub(super) fn add(&mut self, other: Said) {
        self.offers.extend(other.offers);
        self.wrong.extend(other.wrong);
        self.damaged.extend(other.damaged);
        self.waiting.extend(other.waiting);
        self.notes.extend(other.notes);
    }
}

impl From<Result<Vec<Offer>>> for Said {
    fn from(result: Result<Vec<Offer>>) -> Said {
        let mut said = Said::default();
        said.take(result);
        said
    }
}

impl From<Result<Option<Offer>>> for Said {
    fn from(result: Result<Option<Offer>>) -> Said {
        result.map(|offer| offer.into_iter().collect::<Vec<_>>()).into()
    }
}

impl From<Result<Asked>> for Said {
    fn from(result: Result<Asked>) -> Said {
        match result {
            Ok(Asked::Silent(text)) => Said { waiting: vec![text], ..Said::default() },
            Ok(Asked::Nothing) => Said::default(),
            Ok(Asked::Offer(offer)) => Ok(Some(offer)).into(),
            Err(error) => Err::<Option<Offer>, _>(error).into(),
        }
    }
}
