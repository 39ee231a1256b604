"""What a campaign remembers: schema, migrations, shipped queries and the only writer."""
