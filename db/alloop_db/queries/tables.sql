-- Every table and view with its columns (their meanings are in docs/ledger.md).
SELECT schema.type AS kind, schema.name AS name, info.name AS column, info.type AS type
FROM sqlite_master AS schema, pragma_table_info(schema.name) AS info
WHERE schema.type IN ('table', 'view') AND schema.name NOT LIKE 'sqlite_%'
ORDER BY schema.type, schema.name, info.cid;
