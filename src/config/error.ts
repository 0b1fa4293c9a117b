// Apart from the loader, so that whoever reports errors need not load YAML and the schema.

/** Something in the file is wrong; `message` has one `file:line:column: key: sentence` per line. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}
