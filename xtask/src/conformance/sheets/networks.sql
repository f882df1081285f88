CREATE TABLE networks (id int PRIMARY KEY, address inet, network cidr, hardware macaddr, hardware_8 macaddr8);
CREATE TABLE systems (id int PRIMARY KEY, place pg_lsn, snapshot pg_snapshot, old_snapshot txid_snapshot, transaction xid8,
    short_transaction xid, command cid, tuple tid, words tsvector, query tsquery);

-- operations
INSERT INTO networks VALUES (1, '127.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05');
INSERT INTO networks VALUES (2, '192.168.1.5/24', '2001:db8::/32', 'FF-FF-FF-FF-FF-FF', 'ff:ff:ff:ff:ff:ff:ff:ff');
INSERT INTO networks VALUES (3, '::1', '::/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00');
INSERT INTO networks (id) VALUES (4);
UPDATE networks SET address = '::ffff:1.2.3.4' WHERE id = 1;
DELETE FROM networks WHERE id IN (2, 4);
INSERT INTO systems VALUES (1, '16/B374D848', '10:20:10,14,15', '10:20:10,14,15', '18446744073709551615', '4294967295', '7', '(1,2)',
    'a fat cat:3A sat:4B', 'fat & (rat | !cat:A)');
INSERT INTO systems (id) VALUES (2);
UPDATE systems SET words = '' WHERE id = 1;
DELETE FROM systems WHERE id = 1;
