CREATE SCHEMA "Other Schema";
CREATE SCHEMA lower_case;
CREATE TABLE "Capital" ("Id" int PRIMARY KEY, "camelCase" text);
CREATE TABLE "with space" ("key one" int, "key.two" text, "a.b" text, "q""uote" text, "with space" int, "naïve" text, "日本" int, "🐘" text, "$dollar" int,
    "1digit" int, "-dash" int, "back\slash" text, "tab	tab" int, "after" text, "op" int, PRIMARY KEY ("key one", "key.two"));
CREATE TABLE "Ünïcode" (id int PRIMARY KEY, "ä" text);
CREATE TABLE "with-dash_and$dollar" (id int PRIMARY KEY, note text);
CREATE TABLE "Other Schema"."Some Table" (id int PRIMARY KEY, note text);
CREATE TABLE lower_case.capital (id int PRIMARY KEY, note text);

-- operations
INSERT INTO "Capital" VALUES (1, 'a'), (2, NULL);
UPDATE "Capital" SET "Id" = 3 WHERE "Id" = 1;
DELETE FROM "Capital";
INSERT INTO "with space" VALUES (1, 'k', 'a', 'b', 2, 'c', 3, 'd', 4, 5, 6, 'e', 7, 'f', 8), (2, 'l', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE "with space" SET "key.two" = 'm';
DELETE FROM "with space";
INSERT INTO "Ünïcode" VALUES (1, 'a');
UPDATE "Ünïcode" SET id = 2;
DELETE FROM "Ünïcode";
INSERT INTO "with-dash_and$dollar" VALUES (1, 'a');
INSERT INTO "Other Schema"."Some Table" VALUES (1, 'a');
DELETE FROM "Other Schema"."Some Table";
INSERT INTO lower_case.capital VALUES (1, 'a');
