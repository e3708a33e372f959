// What only the browser can do for a tab's node: keep a key that no script can read, lock an identity, sync a file.
//
// An identity is a non-extractable Ed25519 key and a storage incarnation, kept in IndexedDB. The journal is a file in
// the origin private file system. A Web Lock per identity makes sure that two tabs never run one node.

const DATABASE = 'qunlong';
const STORE = 'identities';
// The worker of a tab that is being reloaded may hold its lock a little longer.
const RELOAD_PATIENCE_MS = 2000;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function database() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
  return done(request);
}

async function allIdentities() {
  const db = await database();
  return done(db.transaction(STORE).objectStore(STORE).getAll());
}

// Resolves once the change is on the disk, not merely in the browser's memory.
async function change(work) {
  const db = await database();
  const transaction = db.transaction(STORE, 'readwrite', { durability: 'strict' });
  work(transaction.objectStore(STORE));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

const lockName = (id) => `qunlong-node-${id}`;

// Holds the lock until the worker ends. Resolves to whether it was free.
function tryLock(id) {
  return new Promise((resolve, reject) => {
    navigator.locks.request(lockName(id), { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock === null ? undefined : new Promise(() => {});
    }).catch(reject);
  });
}

async function lockWithin(id, milliseconds) {
  const end = performance.now() + milliseconds;
  while (!(await tryLock(id))) {
    if (performance.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

async function publicKeyOf(keys) {
  return new Uint8Array(await crypto.subtle.exportKey('raw', keys.publicKey));
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

async function idOf(publicKey) {
  return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', publicKey)).slice(0, 16));
}

async function mint() {
  const keys = await crypto.subtle.generateKey({ name: 'Ed25519' }, false, ['sign', 'verify']);
  const publicKey = await publicKeyOf(keys);
  const incarnation = crypto.getRandomValues(new Uint8Array(16));
  return { id: await idOf(publicKey), keys, publicKey, incarnation };
}

// The identity this tab had, else a stored one that no other tab uses, else none.
async function stored(hint) {
  const identities = await allIdentities();
  const own = identities.find((identity) => identity.id === hint);
  if (own && await lockWithin(own.id, RELOAD_PATIENCE_MS)) return own;
  for (const identity of identities) {
    if (identity.id !== hint && await tryLock(identity.id)) return identity;
  }
  return undefined;
}

/** The identity to run under, locked: `{ id, publicKey, incarnation, isNew }`. */
export async function openIdentity(hint) {
  const known = await stored(hint);
  if (known) return { ...known, isNew: false };
  const fresh = await mint();
  await tryLock(fresh.id);
  return { ...fresh, isNew: true };
}

/** An identity that lives no longer than this worker. */
export async function volatileIdentity() {
  return { ...await mint(), isNew: true };
}

/** Keeps a new identity; its journal must be durable before this. */
export async function keepIdentity(identity) {
  const { id, keys, publicKey, incarnation } = identity;
  await change((store) => store.put({ id, keys, publicKey, incarnation }));
}

/** Forgets an identity whose journal is gone or belongs to another life. */
export async function forgetIdentity(id) {
  await change((store) => store.delete(id));
}

export async function sign(identity, bytes) {
  return new Uint8Array(await crypto.subtle.sign('Ed25519', identity.keys.privateKey, bytes));
}

export async function verify(publicKey, bytes, signature) {
  const key = await crypto.subtle.importKey('raw', publicKey, { name: 'Ed25519' }, false, ['verify']);
  return crypto.subtle.verify('Ed25519', key, signature, bytes);
}

/** The journal files of a node: names with their numbers, newest last. */
export async function journalNames(id) {
  const root = await navigator.storage.getDirectory();
  const names = [];
  for await (const name of root.keys()) {
    if (name.startsWith(`journal-${id}-`)) names.push(name);
  }
  return names.sort();
}

/** Opens a file for this worker alone. The worker before a reload may not have let go of it yet. */
export async function openFile(name) {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle(name, { create: true });
  const end = performance.now() + RELOAD_PATIENCE_MS;
  for (;;) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

export async function removeFile(name) {
  const root = await navigator.storage.getDirectory();
  await root.removeEntry(name);
}

export function readAll(file) {
  const bytes = new Uint8Array(file.getSize());
  file.read(bytes, { at: 0 });
  return bytes;
}

/** Appends and makes durable. */
export function append(file, bytes) {
  const at = file.getSize();
  const written = file.write(bytes, { at });
  if (written !== bytes.length) throw new Error('the browser wrote less than it was given: storage is full');
  file.flush();
}

/** Cuts off what lies behind `length` and makes that durable. */
export function cut(file, length) {
  file.truncate(length);
  file.flush();
}

export function close(file) {
  file.close();
}

/** Whether the browser has promised not to evict what this site stores. */
export async function isPersisted() {
  return navigator.storage.persisted ? navigator.storage.persisted() : false;
}

export function random(length) {
  return crypto.getRandomValues(new Uint8Array(length));
}
