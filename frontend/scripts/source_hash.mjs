import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// Everything that decides what the bundle contains. tests/test_bundle.py walks the same list in Python.
const FILES = [
  'package-lock.json',
  'package.json',
  'tsconfig.json',
  'vite.config.mjs',
  'scripts/source_hash.mjs',
];

function walk(root, folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory() ? walk(root, path) : [path];
  });
}

/** SHA-256 over path and content of every source, so that a test can tell a stale bundle without Node. */
export function sourceHash(root) {
  const hash = createHash('sha256');
  for (const path of [...FILES, ...walk(root, 'src')].sort()) {
    hash.update(`${path}\0`);
    hash.update(readFileSync(join(root, path)));
    hash.update('\0');
  }
  return hash.digest('hex');
}
