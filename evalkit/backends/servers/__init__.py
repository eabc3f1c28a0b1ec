"""What the backends that ask a server over HTTP share: settings, client, codecs, scorers."""
