package search;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.StringJoiner;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;

/**
 * Writes rows to an index by OpenSearch's {@code _bulk}. At least once: at each checkpoint of Flink everything that came
 * before has been acknowledged.
 */
final class OpenSearchSink implements Sink<RowData> {
    private static final int DOCUMENTS_MAX = 1000;
    private static final Duration ANSWER_MAX = Duration.ofSeconds(30);

    private final String url;
    private final String index;
    private final String[] columns;
    private final int[] key;
    private final DynamicTableSink.DataStructureConverter converter;

    OpenSearchSink(String url, String index, String[] columns, int[] key, DynamicTableSink.DataStructureConverter converter) {
        this.url = url;
        this.index = index;
        this.columns = columns;
        this.key = key;
        this.converter = converter;
    }

    @Override
    public SinkWriter<RowData> createWriter(WriterInitContext context) {
        return new Writer();
    }

    private final class Writer implements SinkWriter<RowData> {
        private final ObjectMapper json = new ObjectMapper();
        private final HttpClient client = HttpClient.newHttpClient();
        /** By id, the lines of the newest change that has not been sent. */
        private final Map<String, String> waiting = new LinkedHashMap<>();

        @Override
        public void write(RowData data, Context context) throws IOException, InterruptedException {
            Row row = (Row) converter.toExternal(data);
            StringJoiner id = new StringJoiner("|");
            for (int column : key) {
                id.add(String.valueOf(row.getField(column)));
            }
            boolean isGone = row.getKind() == RowKind.DELETE;
            Map<String, ?> target = Map.of("_index", index, "_id", id.toString());
            String lines = json.writeValueAsString(Map.of(isGone ? "delete" : "index", target)) + "\n";
            waiting.put(id.toString(), isGone ? lines : lines + json.writeValueAsString(document(row)) + "\n");
            if (waiting.size() >= DOCUMENTS_MAX) {
                flush(false);
            }
        }

        private Map<String, Object> document(Row row) {
            Map<String, Object> document = new LinkedHashMap<>();
            for (int column = 0; column < columns.length; column++) {
                document.put(columns[column], row.getField(column));
            }
            return document;
        }

        @Override
        public void flush(boolean isEnd) throws IOException, InterruptedException {
            if (waiting.isEmpty()) {
                return;
            }
            HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/_bulk"))
                .timeout(ANSWER_MAX)
                .header("content-type", "application/x-ndjson")
                .POST(HttpRequest.BodyPublishers.ofString(String.join("", waiting.values())))
                .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            JsonNode body = answer.statusCode() == 200 ? json.readTree(answer.body()) : null;
            // Flink begins again at its last checkpoint, and sends the same documents.
            if (body == null || body.path("errors").asBoolean(true)) {
                throw new IOException("OpenSearch refused: " + answer.statusCode() + " " + answer.body());
            }
            waiting.clear();
        }

        @Override
        public void close() {}
    }
}
