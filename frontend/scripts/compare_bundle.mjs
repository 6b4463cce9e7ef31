// Builds into a scratch folder and compares with the committed bundle, byte for byte.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const committed = join(root, '../tb_bnlens/static');
const fresh = mkdtempSync(join(tmpdir(), 'bn-lens-bundle-'));
try {
  execFileSync('npx', ['vite', 'build', '--logLevel', 'warn'], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, BN_LENS_OUT: fresh },
  });
  const names = readdirSync(fresh).sort();
  const differing = names.filter((name) => {
    try {
      return !readFileSync(join(fresh, name)).equals(readFileSync(join(committed, name)));
    } catch {
      return true;
    }
  });
  const extra = readdirSync(committed).filter((name) => !names.includes(name));
  if (differing.length || extra.length) {
    console.error(
      `tb_bnlens/static is not what the sources build: ${[...differing, ...extra].join(', ')}. Run "npm run build" and commit it.`,
    );
    process.exitCode = 1;
  } else {
    console.log(`bundle is up to date: ${names.join(', ')}`);
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
