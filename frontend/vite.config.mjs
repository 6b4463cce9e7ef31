import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';
import { sourceHash } from './scripts/source_hash.mjs';

const root = fileURLToPath(new URL('.', import.meta.url));

/** The minifier drops comments, so the banner goes on last. */
function banner() {
  return {
    name: 'bn-lens-banner',
    enforce: 'post',
    generateBundle(_options, bundle) {
      const text = `/*! BN Lens for TensorBoard. Generated from frontend/ by "npm run build". Licences: LICENSES.md. sources:${sourceHash(root)} */\n`;
      for (const file of Object.values(bundle)) {
        if (file.type === 'chunk') file.code = text + file.code;
        else if (file.fileName.endsWith('.css')) file.source = text + file.source;
      }
    },
  };
}

export default defineConfig({
  root,
  base: './',
  plugins: [banner()],
  build: {
    target: 'es2022',
    outDir: process.env.BN_LENS_OUT ?? '../tb_bnlens/static',
    emptyOutDir: true,
    modulePreload: false,
    cssCodeSplit: false,
    license: { fileName: 'LICENSES.md' },
    rolldownOptions: {
      input: 'src/index.tsx',
      preserveEntrySignatures: 'strict',
      output: {
        format: 'es',
        codeSplitting: false,
        entryFileNames: 'index.js',
        assetFileNames: 'index.[ext]',
      },
    },
  },
  test: {
    environment: 'happy-dom',
    include: ['test/**/*.test.{ts,tsx}'],
  },
});
