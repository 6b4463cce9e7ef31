/** Where the documentation is: the Homepage of pyproject.toml, which tests/test_bundle.py compares. */
const HOME = 'https://github.com/bnlens/tensorboard-plugin-bnlens';

/** The section of the documentation on a cause. */
export function diagnosisPage(rule: string): string {
  return `${HOME}/blob/main/docs/diagnoses.md#${encodeURIComponent(rule)}`;
}
