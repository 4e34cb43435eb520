"""What two processes must agree on: subjects, events, codec, connection, embedded server, members, claims, the client."""
