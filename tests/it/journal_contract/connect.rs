//! What connecting refuses, and what it only waits for.

use super::*;

/// The bound that adapters have, and as much again.
const BOUNDED: Duration = Duration::from_secs(10);

async fn connect_error(journal: &dyn Journal) -> ConnectError {
    let connected = timeout(BOUNDED, journal.connect()).await;
    connected
        .expect("a bound in time")
        .err()
        .expect("no session")
}

/// A broker whose password is `open-sesame`, or RabbitMQ's `guest`: it always has one.
async fn guarded(kind: Kind) -> (Option<Broker>, &'static str) {
    if kind == Kind::RabbitMq {
        return (None, "guest");
    }
    let password = "open-sesame";
    let settings = Settings {
        password: Some(password),
        ..Settings::default()
    };
    (Some(Broker::start_with(kind, settings).await), password)
}

laws! {
    async fn a_wrong_password_is_refused_and_not_repeated(kind: Kind) {
        let (own, password) = guarded(kind).await;
        let broker = own.as_ref().unwrap_or_else(|| shared(kind));
        let name = fresh_name();
        let wrong = "n0-idea-what";
        let url = broker.url().replace(&format!(":{password}@"), &format!(":{wrong}@"));
        assert_ne!(url, broker.url());

        let refused = journal(kind, &url, &options(&name));
        match connect_error(&*refused).await {
            ConnectError::Refused(text) => {
                assert!(!text.contains(wrong) && !text.contains('@'), "{text}");
                assert!(!text.contains('\n'), "{text}");
            }
            ConnectError::Unavailable(text) => panic!("unavailable: {text}"),
        }
        // One that is told separately counts.
        let separately = JournalOptions {
            password: Some(password.to_owned()),
            ..options(&name)
        };
        let allowed = journal(kind, &url, &separately);
        let session = session(&*allowed).await;
        Writer::first().append(&*session).await;
        for journal in [refused, allowed] {
            let described = journal.describe();
            assert!(described.ends_with(&format!("://{}", broker.address())), "{described}");
        }
    }

    async fn a_broker_that_is_not_there_is_unavailable(kind: Kind) {
        let url = shared(kind).url_at(([127, 0, 0, 1], ports::free()).into());
        let journal = journal(kind, &url, &options(&fresh_name()));
        let error = connect_error(&*journal).await;
        assert!(matches!(error, ConnectError::Unavailable(_)), "{error:?}");
        assert!(!error.to_string().contains('@'), "{error}");
    }

    async fn a_broker_that_says_nothing_is_unavailable(kind: Kind) {
        let proxy = ChaosProxy::start(shared(kind).address()).await;
        proxy.set(Mode::Stall).await;
        let url = shared(kind).url_at(proxy.address);
        let journal = journal(kind, &url, &options(&fresh_name()));
        let error = connect_error(&*journal).await;
        assert!(matches!(error, ConnectError::Unavailable(_)), "{error:?}");
        // It is there once it speaks.
        proxy.set(Mode::Pass).await;
        let session = session(&*journal).await;
        Writer::first().append(&*session).await;
    }

    async fn tls_with_an_authority_of_ones_own(kind: Kind) {
        let settings = Settings {
            tls: true,
            ..Settings::default()
        };
        let broker = Broker::start_with(kind, settings).await;
        let trusting = JournalOptions {
            ca_file: broker.ca_file(),
            ..options(&fresh_name())
        };
        let encrypted = journal(kind, &broker.url(), &trusting);
        let session = session(&*encrypted).await;
        let mut tail = soon(session.tail(0)).await.unwrap();
        let appended = Writer::first().append_many(&*session, 10).await;
        assert_eq!(payloads(&entries(&mut *tail, 10).await), appended);

        // The system's authorities do not know it.
        let distrusting = options(&fresh_name());
        let distrusting = journal(kind, &broker.url(), &distrusting);
        let error = connect_error(&*distrusting).await;
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error:?}");
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
    }
}
