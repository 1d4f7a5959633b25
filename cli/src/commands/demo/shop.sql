-- A small shop, as an application would keep it: Syncline adds tables and triggers of its own beside these.
PRAGMA journal_mode = WAL;
CREATE TABLE customer (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  city TEXT
);
CREATE TABLE product (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  stock INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE purchase (
  id INTEGER PRIMARY KEY,
  customer INTEGER NOT NULL REFERENCES customer (id),
  ordered_on DATE NOT NULL,
  reference TEXT NOT NULL
);
CREATE TABLE purchase_line (
  purchase INTEGER NOT NULL REFERENCES purchase (id) ON DELETE CASCADE,
  line INTEGER NOT NULL,
  product INTEGER NOT NULL REFERENCES product (id),
  quantity INTEGER NOT NULL,
  serial TEXT NOT NULL,
  PRIMARY KEY (purchase, line)
);
