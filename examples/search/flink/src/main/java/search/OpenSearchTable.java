package search;

import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.DataType;

/**
 * The connector {@code opensearch} of Flink SQL: a table that is an index. Each row is a document. Its primary key is the
 * document's id, so a row that comes again after a failure changes nothing.
 */
public final class OpenSearchTable implements DynamicTableSinkFactory {
    private static final ConfigOption<String> URL = ConfigOptions.key("url").stringType().noDefaultValue();
    private static final ConfigOption<String> INDEX = ConfigOptions.key("index").stringType().noDefaultValue();

    @Override
    public String factoryIdentifier() {
        return "opensearch";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(URL, INDEX);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public DynamicTableSink createDynamicTableSink(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validate();
        ResolvedSchema schema = context.getCatalogTable().getResolvedSchema();
        int[] key = schema.getPrimaryKeyIndexes();
        if (key.length == 0) {
            throw new ValidationException("A table of `opensearch` needs PRIMARY KEY (…) NOT ENFORCED.");
        }
        String url = helper.getOptions().get(URL);
        String index = helper.getOptions().get(INDEX);
        return new Target(url, index, schema.getColumnNames().toArray(String[]::new), key, context.getPhysicalRowDataType());
    }

    /** An index that rows go to. */
    private record Target(String url, String index, String[] columns, int[] key, DataType row) implements DynamicTableSink {
        @Override
        public ChangelogMode getChangelogMode(ChangelogMode asked) {
            // The id finds the old document, so the old row is not needed.
            return ChangelogMode.upsert();
        }

        @Override
        public SinkRuntimeProvider getSinkRuntimeProvider(Context context) {
            return SinkV2Provider.of(new OpenSearchSink(url, index, columns, key, context.createDataStructureConverter(row)));
        }

        @Override
        public DynamicTableSink copy() {
            return new Target(url, index, columns, key, row);
        }

        @Override
        public String asSummaryString() {
            return "OpenSearch index " + index;
        }
    }
}
