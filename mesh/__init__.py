"""What two processes must agree on: subjects, events, codec, connection, server, members, claims, client."""
