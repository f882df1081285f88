CREATE TABLE bits (id int PRIMARY KEY, plain bit, one bit(1), two bit(2), eight bit(8), ten bit(10), sixty_four bit(64),
    seventy bit(70), varying_any bit varying, varying_one bit varying(1), varying_twenty bit varying(20));

-- operations
INSERT INTO bits VALUES (1, '0', '0', '00', '00000000', '0000000000', repeat('0', 64)::bit(64), repeat('0', 70)::bit(70), '', '', '');
INSERT INTO bits VALUES (2, '1', '1', '11', '11111111', '0000000001', repeat('1', 64)::bit(64), repeat('1', 70)::bit(70), '10000000001', '1', '1');
INSERT INTO bits VALUES (3, '1', '1', '10', '10000000', '1000000000', ('1' || repeat('0', 63))::bit(64), ('1' || repeat('0', 69))::bit(70),
    '00000000001', '0', '00000000000000000001');
INSERT INTO bits (id) VALUES (4);
UPDATE bits SET two = ~two, varying_any = varying_any || '1';
DELETE FROM bits WHERE id IN (2, 4);
